"""Encode texts to token ids, and decode tokens to texts, with a model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from emoprobe.models.directory import ModelError

Encode = Callable[[Sequence[str]], list[list[int]]]
Decode = Callable[[list[int]], str]


def encoder(directory: Path) -> Encode:
    """Return a function from texts to their token ids, by the tokenizer in a model's directory.

    It adds no special tokens; special tokens written out in a text are encoded as such.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    return _load(directory)[0]


def count_tokens(texts: Sequence[str], directory: Path) -> list[int]:
    """Return the number of tokens of each text, see `encoder`.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded, or it cannot encode a text.
    """
    encode = encoder(directory)
    try:
        return [len(ids) for ids in encode(texts)]
    except Exception as error:
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be used ({error})") from error


def token_texts(ids: Sequence[int], directory: Path) -> list[str]:
    """Return the text of each token by the tokenizer in a model's directory; a partial character is `�`.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    decode = _decoder(directory)
    return [decode([token]) for token in ids]


@cache
def _decoder(directory: Path) -> Decode:
    return _load(directory)[1]


def _load(directory: Path) -> tuple[Encode, Decode]:
    """Load a tokenizer, as functions that encode and decode.

    Raises:
        ModelError: the directory has no tokenizer that can be loaded.
    """
    try:
        if (directory / "tokenizer.json").is_file():
            from tokenizers import Tokenizer  # 30 ms to import, where transformers takes seconds

            fast = Tokenizer.from_file(str(directory / "tokenizer.json"))
            fast.no_truncation()
            fast.no_padding()
            return (
                lambda texts: [encoding.ids for encoding in fast.encode_batch(list(texts), add_special_tokens=False)],
                lambda ids: str(fast.decode(ids, skip_special_tokens=False)),
            )
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(directory)
        return (
            lambda texts: [list(slow(text, add_special_tokens=False)["input_ids"]) for text in texts],
            lambda ids: str(slow.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        )
    except Exception as error:  # both libraries raise their own kinds, and bare exceptions
        raise ModelError(f"model.source: the tokenizer in {directory} cannot be loaded ({error})") from error
