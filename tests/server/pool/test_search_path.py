"""What Python imports from, where folders have names that its variable cannot write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.pool.address import search_path


@pytest.mark.parametrize("name", ["plain", "10:30", ":", "a b [1] {x} 'y' & #7"])
def test_modules_are_imported_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    folders = [tmp_path / name / "one", tmp_path / name / "two"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / f"module_{folder.name}.py").write_text(f"here = {folder.name!r}")
    value = search_path(*folders)
    assert value == search_path(*folders)
    assert (":" in name) != (value == os.pathsep.join(map(str, folders)))
    code = "import module_one, module_two; print(module_one.here, module_two.here)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": value}, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "one two\n", done.stderr
