"""Models: what is refused, and when one counts as another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Model
from emoprobe.models.source import EMBEDDED, ModelError, check_capture, directory_sha256, local_directory, prepare
from tests.emoprobe.models.families import config
from tests.server.capture import tiny_models


@pytest.fixture(scope="module")
def whole(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.make("llama", smollm2, tmp_path_factory.mktemp("model"))


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ["does not exist"]),
        (lambda folder: (folder / "config.json").unlink(), ["no config.json"]),
        (pickled, ["no *.safetensors"]),
        (lambda folder: (folder / "tokenizer.json").unlink(), ["no tokenizer"]),
        (cut, ["model.safetensors is damaged"]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), ["model.safetensors is damaged"]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."), ["model.safetensors is damaged"]),
    ],
)
def test_a_directory_that_is_no_model(copied: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(copied)
    with pytest.raises(ModelError) as caught:
        prepare(Model(source=str(copied)), copied.parent)
    for word in ["model.source", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Model(source="nobody/nothing"), ["nobody/nothing", "Hugging Face hub", "local directory"]),
        (Model(source="nobody/nothing", revision="abc"), ["at revision abc", "Check the id and the revision"]),
        (Model(revision="main"), ["model.revision", "remove the key"]),
    ],
)
@pytest.mark.parametrize("weights", [True, False])
def test_a_model_or_revision_that_does_not_exist(model: Model, words: list[str], weights: bool, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        prepare(model, tmp_path, weights=weights)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        (Capture(layers=[3]), ["capture.layers", "3 layers", "3 does not exist"]),
        (Capture(layers=[-4]), ["capture.layers", "-4"]),
        (
            Capture(hook_points=["nose.output"]),
            ["capture.hook_points", "'nose.output'", "accepted: resid_pre", "self_attn.output"],
        ),
    ],
)
def test_layers_and_hook_points_that_the_model_lacks(whole: Path, capture: Capture, words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        check_capture(capture, whole)
    for word in words:
        assert word in str(caught.value)


def test_parts_of_the_stream_that_a_family_lacks(tmp_path: Path) -> None:
    config("gpt_neox_parallel").save_pretrained(tmp_path)
    check_capture(Capture(hook_points=["resid_pre", "attn_out", "mlp_out", "resid_post", "attention.output"]), tmp_path)
    with pytest.raises(ModelError, match=r"capture\.hook_points: this model has no resid_mid: attention and MLP stand"):
        check_capture(Capture(hook_points=["resid_mid"]), tmp_path)


@pytest.mark.parametrize("kind", ["mamba", "t5"])
def test_a_model_of_no_supported_kind_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"^model\.source: .*: a {kind} model is no decoder with attention layers.*$"):
        check_capture(Capture(), tmp_path)


def test_a_configuration_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(ModelError, match=r"^model\.source: .*abacus.*$"):
        check_capture(Capture(), tmp_path)


def test_a_directory_is_known_before_anything_is_prepared(whole: Path, tmp_path: Path) -> None:
    assert local_directory(Model(source=str(whole)), tmp_path) == whole
    assert local_directory(Model(source=str(tmp_path)), tmp_path) is None
    assert local_directory(Model(), tmp_path) is None
    (tmp_path / EMBEDDED).mkdir()
    (tmp_path / EMBEDDED / "config.json").write_text("{}")
    assert local_directory(Model(), tmp_path) == tmp_path / EMBEDDED
    assert local_directory(Model(source="nobody/nothing"), tmp_path) is None


def test_another_checkpoint_of_the_same_shape_is_another_model(copied: Path) -> None:
    before = directory_sha256(copied)
    weights = copied / "model.safetensors"
    tensors = load_file(weights)
    assert directory_sha256(copied) == before
    save_file({name: (tensor * np.float32(1.001)) for name, tensor in tensors.items()}, weights, {"format": "pt"})
    assert directory_sha256(copied) != before
    save_file(tensors, weights, {"format": "pt"})
    assert directory_sha256(copied) == before
