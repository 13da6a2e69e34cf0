"""Models: what is refused, and when one counts as another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Model
from emoprobe.models.source import ModelError, check_capture, directory_sha256, prepare
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
        (Capture(layers=[3]), ["capture.layers", "3 layers", "3 is none"]),
        (Capture(layers=[-4]), ["capture.layers", "-4"]),
        (Capture(hook_points=["nose.output"]), ["capture.hook_points", "'nose'", "self_attn"]),
    ],
)
def test_layers_and_hook_points_that_the_model_lacks(whole: Path, capture: Capture, words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        check_capture(capture, whole)
    for word in words:
        assert word in str(caught.value)


def test_another_checkpoint_of_the_same_shape_is_another_model(copied: Path) -> None:
    before = directory_sha256(copied)
    weights = copied / "model.safetensors"
    tensors = load_file(weights)
    assert directory_sha256(copied) == before
    save_file({name: (tensor * np.float32(1.001)) for name, tensor in tensors.items()}, weights, {"format": "pt"})
    assert directory_sha256(copied) != before
    save_file(tensors, weights, {"format": "pt"})
    assert directory_sha256(copied) == before
