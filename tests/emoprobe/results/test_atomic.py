"""Files and folders that appear complete or not at all."""

import threading
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
    with atomic.directory(target, ["old", "new"]) as folder:
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


@pytest.mark.parametrize("place", ["other.txt", "sub/old", "a file", "a link"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_folder_with_other_content_is_not_replaced(tmp_path: Path, place: str, when: str) -> None:
    target, elsewhere = tmp_path / "d", tmp_path / "elsewhere"

    def occupy() -> None:
        if place == "a file":
            target.write_text("mine")
        elif place == "a link":
            elsewhere.mkdir()
            (elsewhere / "old").write_text("mine")
            target.symlink_to(elsewhere)
        else:
            (target / place).parent.mkdir(parents=True)
            (target / place).write_text("mine")
            (target / "old").write_text("mine")

    def write() -> None:
        with atomic.directory(target, ["old", "sub"]) as folder:
            (folder / "old").write_text("new")
            if when == "meanwhile":
                occupy()

    if when == "before":
        occupy()
    with pytest.raises(atomic.OccupiedError):
        write()
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"mine"}
    assert {path.name for path in tmp_path.iterdir()} <= {"d", "elsewhere"}


def test_writers_of_one_folder_at_once_leave_one_of_them_whole(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "d"
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            for _ in range(20):
                with atomic.directory(target, ["a", "b"]) as folder:
                    for name in ("a", "b"):
                        (folder / name).write_text(str(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (target / "a").read_text() == (target / "b").read_text()
    assert [path.name for path in target.parent.iterdir()] == ["d"]


def test_only_named_files_are_removed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_text(name)
    atomic.remove_directory(tmp_path / "d", ["a", "b"])
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["c"]
    atomic.remove_directory(tmp_path / "d", ["c"])
    atomic.remove_directory(tmp_path / "d", ["c"])
    assert not (tmp_path / "d").exists()
