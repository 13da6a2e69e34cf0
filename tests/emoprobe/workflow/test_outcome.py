"""What a run says of its failures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emoprobe.config.files import study_of
from emoprobe.workflow import outcome

JOBS = {
    "results/{experiment}/logs/tabulate.log": ["results/{experiment}/table"],
    "results/{experiment}/logs/generate/{variant}/{sample}.log": ["results/{experiment}/{variant}/{sample}/t"],
    "results/{study}/logs/gather.log": ["results/{study}/table"],
}
BEGAN = 1000.0


def write(path: str, text: str, date: float = BEGAN + 1) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    os.utime(path, (date, date))


def test_failures_of_experiments_and_of_their_study_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of(
        {"study": {"name": "s"}, "base": {}, "grid": {"seed": {"a": {}, "b": {"experiment": {"seed": 1}}}}}
    )
    results = Path("results")
    assert outcome.failures(study, results, JOBS, BEGAN) == ""
    write("results/s-a/logs/tabulate.log", "no such column")
    write("results/s-b/logs/tabulate.log", "a warning")
    write("results/s-b/table", "made")
    write("results/s-a/logs/generate/calm/gsm8k_0001.log", "calm/gsm8k_0001: too long")
    write("results/s-a/logs/generate/calm/gsm8k_0002.log", "calm/gsm8k_0002: too long")
    write("results/s-b/logs/generate/calm/gsm8k_0001.log", "calm/gsm8k_0001: of an earlier run", BEGAN - 1)
    write("results/s/logs/gather.log", "no table")
    said = outcome.failures(study, results, JOBS, BEGAN)
    assert "tabulate failed (results/s-a/logs/tabulate.log):\n    no such column" in said
    assert "2 failed (generate calm/gsm8k_0001, generate calm/gsm8k_0002):\n    too long" in said
    assert "gather failed (results/s/logs/gather.log):\n    no table" in said
    assert "warning" not in said
    assert "earlier" not in said
