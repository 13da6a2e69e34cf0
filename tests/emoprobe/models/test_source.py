"""Models: what is refused, and when one counts as another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Model
from emoprobe.models.directory import ModelError, directory_sha256
from emoprobe.models.source import EMBEDDED, check_capture, local_directory, prepare
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


class FakeHub:
    """A repository of the hub that counts how often each file is downloaded, with the filter of the real client."""

    def __init__(self, whole: Path, cache: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        self.downloads: list[str] = []
        self._whole, self._names = whole, names
        self.directory = cache / "abc123"
        self.directory.mkdir()
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)

    def download(
        self, repository: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        from huggingface_hub.utils._paths import filter_repo_objects

        assert (repository, revision) in {("owner/name", "main"), ("owner/name", "abc123")}
        for name in filter_repo_objects(self._names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            place = self.directory / name
            if not place.exists():
                self.downloads.append(name)
                place.parent.mkdir(parents=True, exist_ok=True)
                source = self._whole / place.name
                place.write_bytes(source.read_bytes() if source.exists() else b"{}")
        return str(self.directory)


COPIES = [
    "original/model.safetensors", "original/config.json", "original/dtypes.json", "metal/model.bin", "consolidated.safetensors",
    "consolidated.00.pth", "pytorch_model.bin", "model.gguf", "model.fp16.safetensors", "onnx/model.onnx", "onnx/config.json",
    "gguf/model.safetensors", "tf_model.h5", "flax_model.msgpack",
]  # fmt: skip


@pytest.mark.parametrize("sharded", [False, True])
def test_each_weight_is_downloaded_once(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    source = Path(shutil.copytree(whole, tmp_path / "hub"))
    if sharded:
        tensors = load_file(source / "model.safetensors")
        parts: dict[str, dict[str, Any]] = {
            "model-00001-of-00002.safetensors": {},
            "model-00002-of-00002.safetensors": {},
        }
        for number, (name, tensor) in enumerate(tensors.items()):
            list(parts.values())[number % 2][name] = tensor
        for part, held in parts.items():
            save_file(held, source / part)
        index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        (source / "model.safetensors").unlink()
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    hub = FakeHub(source, tmp_path, [*names, *COPIES], monkeypatch)
    model = Model(source="owner/name", revision="main")
    card = prepare(model, tmp_path / "cache")
    assert (card.path, card.revision) == (str(hub.directory), "abc123")
    assert sorted(hub.downloads) == names
    assert prepare(model, tmp_path / "cache") == card
    assert sorted(hub.downloads) == names


def test_a_repository_without_safetensors_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(whole, tmp_path, ["config.json", "tokenizer.json", "pytorch_model.bin"], monkeypatch)
    with pytest.raises(ModelError, match=r"owner/name has neither model\.safetensors nor .* choose a revision"):
        prepare(Model(source="owner/name", revision="main"), tmp_path / "cache")
    assert hub.downloads == ["config.json", "tokenizer.json"]
