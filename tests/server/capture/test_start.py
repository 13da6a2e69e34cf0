"""A server that cannot start says why in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from tests.workspace import ROOT


def mamba(folder: Path) -> None:
    AutoConfig.for_model("mamba").save_pretrained(folder)


def unknown(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def missing(folder: Path) -> None:
    folder.rmdir()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [(mamba, "a mamba model is no decoder with attention layers"), (unknown, "abacus"), (missing, "model")],
)
def test_a_model_that_cannot_be_served_is_one_line(tmp_path: Path, prepare: object, words: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    prepare(folder)  # type: ignore[operator]
    command = [sys.executable, "-m", "server", "--model", str(folder), "--activation-root", str(tmp_path / "root")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"--model {folder}: ")
    assert words in last
