"""Files and folders that appear complete or not at all."""

from pathlib import Path

import pytest

from emoprobe.results import atomic


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        atomic.write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "a full folder"])
def test_a_folder_takes_its_place_in_one_step(tmp_path: Path, before: str) -> None:
    target = tmp_path / "d"
    if before != "nothing":
        target.mkdir()
    if before == "a full folder":
        (target / "old").write_text("old")
    with atomic.directory(target) as folder:
        (folder / "new").write_text("new")
        assert not (target / "new").exists()
    assert [entry.name for entry in target.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_failed_was_never_there(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic.directory(tmp_path / "d") as folder:
            (folder / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
