"""Every stage in a folder that another program made: what it does not tell is not made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emoprobe.report.closing import summary_text
from emoprobe.stages.folder import NothingThereError, analyze_folder


def write(folder: Path, answer: str, gold: str) -> None:
    folder.mkdir(parents=True)
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": answer}]
    (folder / "trajectory.jsonl").write_text("".join(json.dumps(message) + "\n" for message in messages))
    (folder / "sample.json").write_text(json.dumps({"sample_data": {"answer": gold}}))


def test_a_folder_of_trajectories_alone_gets_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "runs of 2024.1"
    for variant in ("control", "curt"):
        for number in range(10):
            write(folder / variant / f"q{number}", f"Answer: {number}", str(number if variant == "control" else 1))
    layout = analyze_folder(folder)
    report = json.loads(layout.report.read_text())
    assert report["experiment"] == "runs of 2024.1"
    assert report["model"] == {"id": None, "dtype": None, "revision": None}
    assert {row["variant"]: row["correct"] for row in report["accuracy"]} == {"control": 10, "curt": 1}
    assert "runs of 2024.1: 20 trajectories of an unknown model on 10 samples" in summary_text(layout.report)
    assert "smollm2" not in layout.report_html.read_text()


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NothingThereError, match="VARIANT/SAMPLE"):
        analyze_folder(tmp_path)
