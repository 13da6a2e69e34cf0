"""Where activation folders may lie and what is written there, without a server."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from server.capture.activations import ActivationWriter, OverflowedError, SaveDirError

TENSORS = {"resid_post": torch.zeros(1, 1, 2)}
CONTENT = {"layers": [0], "hook_points": ["resid_post"], "dtype": "float32", "positions": "all", "token_ids": [1]}


@pytest.fixture
def storage(tmp_path: Path) -> ActivationWriter:
    return ActivationWriter(tmp_path / "root")


@pytest.mark.parametrize("name", ["a", "a/b/c", "é", "with space", "a.b", "x=1,y@2+z", "a//b", "./a"])
def test_a_folder_below_the_root_is_accepted(storage: ActivationWriter, name: str) -> None:
    assert storage.resolve(name) == (storage.root / name).resolve()
    assert storage.resolve(str(storage.root / name)) == (storage.root / name).resolve()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"), ("  ", "empty"), ("a\0b", "NUL"), ("..", r"`\.\.`"), ("a/../b", r"`\.\."), ("x" * 256, "too long"),
        ("é" * 128, "too long"), (".hidden", "begins with a dot"), ("a/.b", "begins with a dot"), ("a\nb", "character"),
        ("a;b", "character"), ("$HOME", "character"), (".", "lies outside"), ("/etc/x", "lies outside"), ("link/x", "lies outside"),
        ("taken", "something else"), ("file/x", r"cannot be resolved|through a file"), ("file", "cannot be resolved"),
        ("loop/x", "cannot be resolved|lies outside"), ("others", "something else"), ("tree", "something else"),
        ("captured/x", "inside of an activation folder"), ("captured/x/y", "inside of an activation folder"),
    ],
)  # fmt: skip
def test_any_other_path_is_refused(storage: ActivationWriter, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "outside").mkdir()
    (storage.root / "link").symlink_to(tmp_path / "outside")
    (storage.root / "loop").symlink_to(storage.root / "loop")
    (storage.root / "taken").mkdir()
    (storage.root / "taken/thesis.tex").write_text("mine")
    (storage.root / "file").write_text("mine")
    (storage.root / "others").mkdir()
    (storage.root / "others/metadata.json").write_text('{"title": "mine"}')
    (storage.root / "tree/activations.safetensors").mkdir(parents=True)
    storage.write(storage.root / "captured", TENSORS, CONTENT)
    with pytest.raises(SaveDirError, match=words) as caught:
        storage.resolve(name)
    assert "accepted: a folder below the server's activation root" in str(caught.value)


def test_both_files_are_written_at_once(storage: ActivationWriter) -> None:
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_parts_of_a_batch_are_written_whole(storage: ActivationWriter, dtype: torch.dtype) -> None:
    batch = torch.randn(3, 4, 5, 7).to(dtype)  # of which a sequence is no block of memory
    tensors = {"resid_post": batch[:, 2, :3], "mlp.output": batch[:, 1], "a": torch.zeros(1, dtype=dtype)}
    storage.write(storage.root / "a", tensors, {})
    found = load_file(storage.root / "a/activations.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[point], tensor) for point, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_values_that_are_not_finite_are_refused(storage: ActivationWriter, value: float, dtype: torch.dtype) -> None:
    values = torch.arange(2000.0).reshape(2, 10, 100).to(dtype)
    values[1, 3, 7] = value
    name = str(dtype).removeprefix("torch.")
    advice = "; choose dtype bfloat16 or float32" if dtype == torch.float16 else ".*load the model in another type"
    with pytest.raises(OverflowedError, match=f"resid_post are not finite as {name}{advice}"):
        storage.write(storage.root / "a", {"resid_post": values}, {})
    assert list(storage.root.iterdir()) == []


NAMES = [
    "My project (2)",
    "a[1]",
    "O'Neil",
    "R&D",
    "issue#7",
    "10:30",
    ".worktrees/x",
    "{x}",
    "a;b",
    "~",
    "$HOME",
    "%2e",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("linked", [False, True])
def test_the_path_of_the_root_may_have_any_name(tmp_path: Path, name: str, linked: bool) -> None:
    """Only what lies below the root has to keep to the rules for names, also where the root is reached by a link."""
    root = tmp_path / name / "results"
    if linked:
        (tmp_path / "disk").mkdir()
        root.parent.mkdir(parents=True)
        root.symlink_to(tmp_path / "disk")
    storage = ActivationWriter(root)
    expected = root.resolve() / "pilot/activations/joy/sum_0001"
    for given in (root, root.resolve(), Path()):
        assert storage.resolve(str(given / "pilot/activations/joy/sum_0001")) == expected
    for given in (root / ".hidden", root / "a;b", root / "a/../b", root.parent / "x", root.parent):
        with pytest.raises(SaveDirError):
            storage.resolve(str(given))


def test_captures_lie_below_the_folder_of_an_experiment(storage: ActivationWriter) -> None:
    """It has a `metadata.json` as well, which describes no capture."""
    (storage.root / "pilot").mkdir()
    (storage.root / "pilot/metadata.json").write_text('{"experiment": "pilot"}')
    folder = storage.resolve("pilot/activations/joy/sum_0001")
    storage.write(folder, TENSORS, CONTENT)
    with pytest.raises(SaveDirError, match="inside of an activation folder"):
        storage.resolve("pilot/activations/joy/sum_0001/x")


@pytest.mark.parametrize("files", [["thesis.tex", "data.csv"], ["metadata.json"], ["a/b.txt", "metadata.json"]])
def test_what_appears_before_a_capture_is_written_stays(storage: ActivationWriter, files: list[str]) -> None:
    folder = storage.resolve("pilot")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    with pytest.raises(SaveDirError, match="something else"):
        storage.write(folder, TENSORS, CONTENT)
    assert [(folder / name).read_text() for name in files] == ["mine"] * len(files)
    storage.delete(folder)
    assert [(folder / name).read_text() for name in files] == ["mine"] * len(files)
    assert [path.name for path in storage.root.iterdir()] == ["pilot"]


def test_a_capture_is_replaced_and_deleted(storage: ActivationWriter) -> None:
    folder = storage.resolve("a/b")
    storage.write(folder, TENSORS, CONTENT)
    (folder / "activations.safetensors").unlink()  # as a push leaves it
    assert storage.resolve("a/b") == folder
    storage.write(folder, TENSORS, CONTENT)
    storage.delete(folder)
    storage.delete(folder)
    assert not folder.exists()


@pytest.mark.parametrize("seed", range(5))
def test_folders_inside_of_each_other_at_once_are_kept_or_refused(storage: ActivationWriter, seed: int) -> None:
    names = ["/".join(f"n{level}" for level in range(depth + 1)) for depth in range(29)]
    names = names[seed * 5 :] + names[: seed * 5]
    folders = [storage.resolve(name) for name in names]  # all of them before any is written, as in requests at once

    def write(folder: Path) -> bool:
        try:
            storage.write(folder, TENSORS, CONTENT)
        except SaveDirError:
            return False
        return True

    with ThreadPoolExecutor(29) as pool:
        kept = [folder for folder, written in zip(folders, pool.map(write, folders), strict=True) if written]
    assert kept
    for folder in kept:
        content = (folder / "activations.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == json.loads((folder / "metadata.json").read_text())["sha256"]
    assert len(list(storage.root.rglob("*.safetensors"))) == len(kept)
