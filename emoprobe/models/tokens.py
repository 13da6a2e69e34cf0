"""How a model cuts texts into tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from emoprobe.models.source import ModelError

Encode = Callable[[Sequence[str]], list[list[int]]]


def encoder(directory: Path) -> Encode:
    """A function from texts to their token ids by the tokenizer in a model's directory.

    It adds no special tokens; those that a text writes out are read as such.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    try:
        if (directory / "tokenizer.json").is_file():
            from tokenizers import Tokenizer  # 30 ms to import, where transformers takes seconds

            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return lambda texts: [
                encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)
            ]
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(directory)
        return lambda texts: [list(slow(text, add_special_tokens=False)["input_ids"]) for text in texts]
    except Exception as error:  # the libraries raise kinds of their own, and bare ones
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be loaded ({error})") from error


def count_tokens(texts: Sequence[str], directory: Path) -> list[int]:
    """Tokens of each text, see `encoder`.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded, or it cannot read a text.
    """
    encode = encoder(directory)
    try:
        return [len(ids) for ids in encode(texts)]
    except Exception as error:
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be used ({error})") from error


def token_texts(ids: Sequence[int], directory: Path) -> list[str]:
    """The text of each token by the tokenizer in a model's directory; part of a character is `�`.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    decode = _decoder(directory)
    return [decode([one]) for one in ids]


@cache
def _decoder(directory: Path) -> Callable[[list[int]], str]:
    try:
        if (directory / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
            return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(directory)
        return lambda ids: str(slow.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    except Exception as error:  # the libraries raise kinds of their own, and bare ones
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be loaded ({error})") from error
