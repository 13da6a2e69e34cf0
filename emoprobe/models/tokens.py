"""How long texts are for a model."""

from __future__ import annotations

from collections.abc import Sequence
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
