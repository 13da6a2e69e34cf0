"""The command `emoprobe`: what it prints, its exit status, and that errors are one line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import webbrowser
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
import yaml

from emoprobe.command.main import main
from emoprobe.config.files import parse_config
from emoprobe.results.trajectory import AnswerRecord, Trajectory
from tests.workspace import ROOT


def chats(folder: Path, wrong: int = 0) -> Path:
    """Write a folder of conversations alone; the first `wrong` of the variant `angry` are wrong."""
    for number in range(16):
        for variant in ("control", "angry"):
            answer = 8 if variant == "angry" and number < wrong else 7
            sample = f"item_{number:04d}"
            outcome = AnswerRecord.model_validate(
                {"sample_data": {"question": f"Item {number}: 3 + 4?", "answer": "7", "sample_id": sample}}
            )
            messages = [
                {"role": "user", "content": f"Item {number}: 3 + 4?"}, {"role": "assistant", "content": f"Answer: {answer}"},
            ]  # fmt: skip
            Trajectory(messages, outcome=outcome).write(folder / variant / sample)
    return folder


def emoprobe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emoprobe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_help_lists_the_commands_and_imports_nothing_that_takes_time() -> None:
    code = (
        "import sys\nfrom emoprobe.command.main import main\n"
        "try: main(['--help'])\n"
        "finally: print([name for name in ('numpy', 'pandas', 'pydantic', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    for command in ("view", "analyze", "compare", "import", "export", "doctor"):
        assert f"    {command} " in shown.stdout
    assert shown.stdout.endswith("[]\n")


def test_the_wheel_installs_the_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert list(scripts) == ["emoprobe"]
    assert EntryPoint("emoprobe", scripts["emoprobe"], "console_scripts").load() is main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["view", "{folder}/nowhere"], "emoprobe view: {folder}/nowhere does not exist (folders in {folder}: none)"),
        (["view", "--report", "{folder}"], "{folder}/report.html does not exist"),
        (["analyze", "{folder}"], "holds no trajectory"),
        (["compare", "{folder}", "{folder}"], "tables there: none"),
    ],
)
def test_an_error_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert message.format(folder=tmp_path) in said.err


def test_its_exit_status_is_that_of_the_process(tmp_path: Path) -> None:
    ended = emoprobe("analyze", tmp_path / "none")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"emoprobe analyze: {tmp_path}/none does not exist")


def test_view_builds_the_explorer_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def noted(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", noted)
    folder = chats(tmp_path / "ours & theirs")
    page = folder / "explorer/index.html"
    assert main(["view", "--no-browser", str(folder)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.exists()
    assert opened == []
    built = page.stat().st_mtime_ns
    assert main(["view", str(folder)]) == 0
    assert opened == [page.as_uri()]
    assert page.stat().st_mtime_ns == built


def test_a_browser_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    (tmp_path / "report.html").write_text("<p>")
    assert main(["view", "--report", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/report.html\n"
    assert "No browser" in said.err


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr("emoprobe.stages.folder.analyze_folder", missing)
    assert main(["analyze", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "emoprobe analyze: torch is not installed: pip install 'emoprobe[probes]'\n"


def test_compare_shows_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = chats(tmp_path / "left"), chats(tmp_path / "right", wrong=14)
    (right / "control/item_0001").rename(right / "control/item_0017")
    for folder in (left, right):
        assert main(["analyze", str(folder)]) == 0
    path = right / "tables/paired_tests.parquet"
    table = pd.read_parquet(path)
    capsys.readouterr()
    assert main(["compare", str(left), str(right)]) == 0
    said = capsys.readouterr().out
    assert f"left:  {left} (unknown model)" in said
    assert "settings: not compared" in said
    (row,) = (line for line in said.splitlines() if line.startswith("angry − control"))
    (verdict,) = table[(table["measure"] == "correct") & (table["variant"] == "angry")]["verdict"]
    assert verdict == "different_here"
    assert "+0.0 [-21.8, +21.8] undecided (n = 16)" in row
    assert "-86.7 [" in row
    assert f"{verdict} (n = 15)" in row
    assert row.endswith("verdicts differ")
    assert main(["compare", str(left), str(right), "--measure", "beauty"]) == 1
    assert "(measures there: correct, lenient" in capsys.readouterr().err
    assert main(["compare", str(left), str(right), "--measure", "all"]) == 0
    assert "angry − control (lenient)" in capsys.readouterr().out

    for folder, samples in ((left, 12), (right, 16)):
        config = parse_config({"dataset": {"samples": samples, "source": "sums"}, "workers": {"count": samples}}, "-")
        (folder / "experiment.yaml").write_text(yaml.safe_dump(config.resolved()))
    table.assign(variant=table["variant"].replace("angry", "cross")).to_parquet(path)
    assert main(["compare", str(left), str(right)]) == 0
    said = capsys.readouterr().out
    assert "settings that differ, left | right:\n  dataset.samples: 12 | 16\n\n" in said
    assert "The experiments share no contrast." in said
    assert "only left: angry − control" in said
    assert "only right: cross − control" in said

    tone = {"control": {}, "joy": {"texts": ["What a day!", "How nice!"]}}
    for folder, variants in ((left, tone), (right, tone | {"calm": {"text": "All is well."}})):
        config = parse_config({"variants": variants, "prompt": {"system": "x" if folder == left else None}}, "-")
        (folder / "experiment.yaml").write_text(yaml.safe_dump(config.resolved()))
    assert main(["compare", str(left), str(right)]) == 0
    assert (
        "settings that differ, left | right:\n  prompt.system: x | null\n  variants that only right has: calm\n\n"
    ) in capsys.readouterr().out

    rated = table[table["measure"] == "correct"].assign(measure="outcome_rating", value="number", difference=1.25)
    for folder in (left, right):
        rated.to_parquet(folder / "tables/paired_tests.parquet")
    assert main(["compare", str(left), str(right), "--measure", "outcome_rating"]) == 0
    assert "+1.25 [" in capsys.readouterr().out


def test_doctor_is_the_script(tmp_path: Path) -> None:
    asked = emoprobe("doctor", "--help")
    assert asked.returncode == 0
    assert "--short" in asked.stdout
    refused = emoprobe("doctor", "--config", tmp_path / "none.yaml")
    assert refused.returncode == 2
    assert "No such file" in refused.stderr


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["view", "folder", "--nonsense"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
