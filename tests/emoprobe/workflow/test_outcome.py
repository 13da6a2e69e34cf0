"""What a run says of its failures."""

from __future__ import annotations

import json
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
    assert outcome.failures(study, results, JOBS, BEGAN).strip() == "What is done stays; run again to go on."
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


@pytest.mark.parametrize(
    "log",
    [
        "a warning\ninterrupted by SIGTERM\n",
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import jinja2\nKeyboardInterrupt\n',
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import jin',
    ],
)
def test_an_interrupted_job_is_named_without_a_traceback(
    log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of({"experiment": {"name": "s"}})
    write("results/s/logs/tabulate.log", log)
    said = outcome.failures(study, Path("results"), JOBS, BEGAN)
    assert said.strip() == "Interrupted: tabulate. What is done stays; run again to go on."


def test_an_error_of_a_script_is_shown_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of({"experiment": {"name": "s"}})
    write("results/s/logs/tabulate.log", 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1\n')
    said = outcome.failures(study, Path("results"), JOBS, BEGAN)
    assert "    KeyError: 1" in said
    assert "Interrupted" not in said


def test_a_report_that_is_no_part_of_the_run_is_named_and_not_shown(tmp_path: Path) -> None:
    study = study_of({"experiment": {"name": "s"}})
    path = tmp_path / "s/report.json"
    assert outcome.summaries(study, tmp_path, {path}) == ""
    write(str(path), "not read")
    said = outcome.summaries(study, tmp_path, {tmp_path / "s/tables/accuracy.parquet"})
    assert f"this run did not include {path}, which was made 1970-01-01" in said
    write(str(path), REPORT)
    said = outcome.summaries(study, tmp_path, {path})
    assert (
        "s: 12 trajectories of tiny on 4 samples\n  based on the tables of behaviour, probes and the plan 0123456789ab"
        in said
    )


REPORT = json.dumps(
    {
        "experiment": "s",
        "trajectories": 12,
        "samples": 4,
        "model": {"id": "tiny"},
        "plan_sha256": "0123456789abcdef",
        "accuracy": [],
        "paired_tests": [],
        "probes": [{}],
        "statements": [],
    }
)
