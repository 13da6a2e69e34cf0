"""Tokens of texts by a model's tokenizer."""

from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from emoprobe.models import tokens
from emoprobe.models.directory import ModelError
from emoprobe.models.tokens import count_tokens, encoder, token_texts
from emoprobe.stages.preregistration import _text_lengths


def test_tokens_are_those_of_the_models_tokenizer(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["", "Hello", "It is a quiet day, and all is still.", "ünïcödé 12,345"]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    expected = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert count_tokens(texts, smollm2) == expected
    assert count_tokens([], smollm2) == []


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"model\.source: the tokenizer in .* cannot be loaded"):
        count_tokens(["a"], tmp_path)


def test_special_tokens_that_a_text_writes_out_are_read_as_such(smollm2: Path) -> None:
    plain, ended = encoder(smollm2)(["12", "12<|im_end|>"])
    assert len(ended) == len(plain) + 1


def test_tokens_are_decoded_one_by_one(smollm2: Path) -> None:
    text = "12<|im_end|> It is quiet."
    (ids,) = encoder(smollm2)([text])
    assert "".join(token_texts(ids, smollm2)) == text


def test_texts_of_all_variants_are_counted_by_one_tokenizer(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = tokens._load, list[Path]()
    monkeypatch.setattr(tokens, "_load", lambda directory: loaded.append(directory) or load(directory))  # type: ignore[func-returns-value]
    calm = ["It is quiet.", "All is still."]
    config = parse_config({"variants": {"control": {}, "joy": {"text": "What a day!"}, "calm": {"texts": calm}}})
    assert _text_lengths(config, smollm2) == {
        "joy": count_tokens(["What a day!"], smollm2),
        "calm": count_tokens(calm, smollm2),
    }
    assert loaded == [smollm2] * 3  # one for the texts, and one for each call of this test
    assert _text_lengths(parse_config({"variants": {"control": {}}}), smollm2 / "nowhere") == {}
