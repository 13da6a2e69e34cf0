"""Options of the command line, checked before Snakemake reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from snakemake_executor_plugin_emoprobe.command_line import OptionError, check_config_options
from tests.workspace import ROOT

FILES = {
    "deep.yaml": "a: " + "[" * 10_000,
    "digits.yaml": "a: " + "9" * 5000,
    "merges.yaml": "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)),
    "other.yaml": "1: {of: another workflow}",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.yaml").write_bytes("a: Ä".encode("latin-1"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "dataset.samples=2"], "write --config 'dataset={samples: …}'"),
        (["--config", "experiment={name: x}", "a.b.c=sk-secret", "-n"], "write --config 'a={b: {c: …}}'"),
        (["--config=a.b=1"], "'a={b: …}'"),
        (["-C", "a.b=1"], "'a={b: …}'"),
        (["--configfile", "other.yaml", "deep.yaml"], "deep.yaml: line 1: it is nested deeper"),
        (["--configfile=digits.yaml"], "digits.yaml: line 1: a number of 5000 characters"),
        (["--configfiles", "merges.yaml"], "merges.yaml: line 1: with every alias written out"),
        (["-n", "--configfile", "latin.yaml", "--cores", "1"], "latin.yaml: is not UTF-8"),
    ],
)
def test_what_snakemake_cannot_read_is_one_line(options: list[str], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_config_options(options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--config", "dataset={samples: 2}", "seed=1.5", "-n", "a.b=c"],
        ["results/x.y=z", "--configfile", "other.yaml", "none.yaml", "--", "deep.yaml"],
    ],
)
def test_everything_else_is_left_to_the_snakefile(options: list[str]) -> None:
    check_config_options(options)


def test_the_default_file_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(FILES["deep.yaml"])
    with pytest.raises(OptionError, match=r"^config/config\.yaml: line 1"):
        check_config_options(["-n"])


def test_snakemake_ends_with_that_line() -> None:
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "dataset.samples=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[1:] == [
        "--config dataset.samples: a section is a mapping; write --config 'dataset={samples: …}'"
    ]
