"""Where activation folders may lie and what is written there, without a server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from server.capture.storage import OverflowedError, SaveDirError, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "root")


@pytest.mark.parametrize("name", ["a", "a/b/c", "é", "with space", "a.b", "x=1,y@2+z", "a//b", "./a"])
def test_a_folder_below_the_root_is_accepted(storage: Storage, name: str) -> None:
    assert storage.resolve(name) == (storage.root / name).resolve()
    assert storage.resolve(str(storage.root / name)) == (storage.root / name).resolve()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"), ("  ", "empty"), ("a\0b", "NUL"), ("..", r"`\.\.`"), ("a/../b", r"`\.\."), ("x" * 256, "too long"),
        ("é" * 128, "too long"), (".hidden", "begins with a dot"), ("a/.b", "begins with a dot"), ("a\nb", "character"),
        ("a;b", "character"), ("$HOME", "character"), (".", "lies outside"), ("/etc/x", "lies outside"), ("link/x", "lies outside"),
        ("taken", "something else"), ("file/x", r"cannot be resolved|through a file"), ("file", "cannot be resolved"),
        ("loop/x", "cannot be resolved|lies outside"),
    ],
)  # fmt: skip
def test_any_other_path_is_refused(storage: Storage, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "outside").mkdir()
    (storage.root / "link").symlink_to(tmp_path / "outside")
    (storage.root / "loop").symlink_to(storage.root / "loop")
    (storage.root / "taken").mkdir()
    (storage.root / "taken/thesis.tex").write_text("mine")
    (storage.root / "file").write_text("mine")
    with pytest.raises(SaveDirError, match=words) as caught:
        storage.resolve(name)
    assert "accepted: a folder below the server's activation root" in str(caught.value)


def test_both_files_are_written_at_once(storage: Storage) -> None:
    tensors = {"resid_post": torch.arange(6.0).reshape(1, 2, 3), "mlp.output": torch.zeros(1, 2, 3).transpose(0, 0)}
    folder = storage.resolve("a/b")
    stored = storage.write(folder, tensors, {"layers": [0]})
    assert sorted(path.name for path in folder.iterdir()) == ["activations.safetensors", "metadata.json"]
    content = (folder / "activations.safetensors").read_bytes()
    metadata = json.loads((folder / "metadata.json").read_text())
    assert (stored.bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert metadata == {"layers": [0], "shapes": stored.shapes, "sha256": stored.sha256, "bytes": stored.bytes}
    assert torch.equal(load_file(folder / "activations.safetensors")["resid_post"], tensors["resid_post"])
    assert storage.resolve("a/b") == folder  # to be written again
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_are_not_finite_are_refused(storage: Storage, value: float) -> None:
    with pytest.raises(OverflowedError, match="resid_post are not finite as float16; choose dtype bfloat16 or float32"):
        storage.write(storage.root / "a", {"resid_post": torch.full((1, 1, 1), value, dtype=torch.float16)}, {})
    assert list(storage.root.iterdir()) == []
