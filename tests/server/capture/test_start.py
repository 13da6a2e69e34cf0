"""A server that cannot start says why in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from server.__main__ import main
from tests.workspace import ROOT


def mamba(folder: Path) -> None:
    AutoConfig.for_model("mamba").save_pretrained(folder)


def unknown(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def quantised(folder: Path) -> None:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    method = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
    AutoConfig.for_model("llama", **sizes, quantization_config=method).save_pretrained(folder)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes)).save_pretrained(folder / "plain")  # type: ignore[no-untyped-call]
    (folder / "plain/model.safetensors").rename(folder / "model.safetensors")


def missing(folder: Path) -> None:
    folder.rmdir()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (mamba, "a mamba model is no decoder with attention layers"),
        (unknown, "abacus"),
        (missing, "model"),
        (quantised, "gptqmodel"),
    ],
)
def test_a_model_that_cannot_be_served_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    prepare(folder)
    monkeypatch.setattr(sys, "argv", ["", "--model", str(folder), "--activation-root", str(tmp_path / "root")])
    with pytest.raises(SystemExit) as ended:
        main()
    line = str(ended.value.code)
    assert "\n" not in line
    assert line.startswith(f"--model {folder}: ")
    assert words in line


def test_the_line_is_all_that_the_command_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "--model", str(tmp_path), "--activation-root", str(tmp_path / "root")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"--model {tmp_path}: ")
