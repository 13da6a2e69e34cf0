"""How deep and how wide a model is, before it is loaded."""

import json
from pathlib import Path

from emoprobe.config.science.model import Model
from emoprobe.models.settings import known_size, layer_count, stream_width
from emoprobe.models.tokens import encoder


def test_the_embedded_model_is_known_before_it_is_converted(smollm2: Path) -> None:
    assert known_size(Model()) == (layer_count(smollm2), stream_width(smollm2))


def test_a_directory_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"n_layer": 3, "n_embd": 8}}))
    assert known_size(Model(source=str(tmp_path))) == (3, 8)


def test_what_was_not_downloaded_is_not_known(tmp_path: Path) -> None:
    assert known_size(Model(source="nobody/nothing")) == (None, None)
    assert known_size(Model(source=str(tmp_path))) == (None, None)


def test_special_tokens_that_a_text_writes_out_are_read_as_such(smollm2: Path) -> None:
    plain, ended = encoder(smollm2)(["12", "12<|im_end|>"])
    assert len(ended) == len(plain) + 1
