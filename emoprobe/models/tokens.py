"""How long texts are for a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from emoprobe.models.source import ModelError


def count_tokens(texts: Sequence[str], directory: Path) -> list[int]:
    """Tokens of each text by the tokenizer in a model's directory, no special tokens counted.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    try:
        if (directory / "tokenizer.json").is_file():
            from tokenizers import Tokenizer  # 30 ms to import, where transformers takes seconds

            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return [len(found.ids) for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(directory)
        return [len(slow(text, add_special_tokens=False)["input_ids"]) for text in texts]
    except Exception as error:  # the libraries raise kinds of their own, and bare ones
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be loaded ({error})") from error


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
