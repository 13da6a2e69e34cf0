"""Logs of Inspect: ours to its library and back, and its own."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalSample,
    EvalSpec,
    bundle_log_dir,
    read_eval_log,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    ContentText,
    ModelOutput,
    ModelUsage,
)  # fmt: skip
from inspect_ai.scorer import Score
from playwright.sync_api import expect

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.command.main import main
from emoprobe.exchange.inspect_writer import write_logs
from emoprobe.results.trajectory import AgentState, AnswerRecord, SampleFile, Trajectory
from tests.emoprobe.explorer.browser import chromium

CALLS = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}]
# Fields that both formats can hold.
SHARED = (
    "variant", "sample_id", "draw", "group", "question", "gold", "completion", "correct", "extracted", "extraction", "compliant", "truncated",
    "prompt_tokens", "completion_tokens", "seconds", "failure", "lenient", "valence", "worker", "hardware", "attempts", "failed_attempts",
)  # fmt: skip


VARIANTS: dict[str, Any] = {
    "control": {},
    "wrong-hint": {"texts": ["It is 8.", "It is 9."], "valence": "negative", "asks": 2},
}
TRIES = [
    {"worker": "vllm-1", "started": "2026-01-29T15:46:01.404+00:00", "seconds": 0.5, "error": "status 503"},
    {"worker": "vllm-0", "started": "2026-01-29T15:47:01.404+00:00", "seconds": 1.434, "error": None},
]


def experiment(folder: Path) -> Path:
    """Write a folder with draws, thoughts, tools, options, a cut-off answer and a failure."""
    for number, gold in ((1, "7"), (2, "B")):
        path = folder / f"samples/item_{number:04d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = SampleFile(
            sample_id=path.stem,
            question=f"Question {number} é\u2028?",
            answer=gold,
            group=f"level={number}",
            choices=["four", "five"] if gold == "B" else None,
        )
        path.write_text(values.model_dump_json())
    (folder / "metadata.json").write_text(json.dumps({"model": {"id": "me/mine"}, "random_seed": 3}))
    (folder / "experiment.yaml").write_text(
        json.dumps(
            {"dataset": {"id_prefix": "item"}, "graders": ["number", "apology", "sentiment"], "variants": VARIANTS}
        )
    )
    for variant in ("control", "wrong-hint"):
        for number, name, answer in (
            (1, "item_0001", "Answer: 7"), (1, "item_0001-d2", "Answer: 8"), (2, "item_0002", "Answer: B"),
            (2, "item_0002-d2", ""),
        ):  # fmt: skip
            opening: list[dict[str, Any]] = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"{variant}\n\nQuestion {number} é\u2028?"},
            ]
            if number == 1:
                opening += [
                    {"role": "assistant", "content": "", "tool_calls": CALLS},
                    {"role": "tool", "content": "8", "tool_call_id": "c1", "name": "add"},
                ]
            last = {"role": "assistant", "content": answer, "reasoning_content": "Hm.\n"}
            state = AgentState.model_validate(
                {
                    "request": {
                        "messages": opening,
                        "max_tokens": 24,
                        "temperature": 0.5,
                        "top_p": 0.9,
                        "stop": ["\n\n"],
                        "seed": 7,
                    },
                    "worker_id": "vllm-0",
                    "hardware": "cpu",
                    "attempts": TRIES,
                    "finish_reason": None if name.endswith("2-d2") else "length" if name.endswith("1-d2") else "stop",
                    "usage": {"prompt_tokens": 90, "completion_tokens": 5, "total_tokens": 95},
                    "timing": {"started": "2026-01-29T15:47:01.404+00:00", "seconds": 1.434},
                    "error": "no server answered" if name.endswith("2-d2") else None,
                }
            )
            outcome = AnswerRecord.model_validate({"sample_data": {"answer": "7"}, "metrics": {"correctness": 1.0}})
            Trajectory([*opening, last], state, outcome).write(folder / variant / name)
    return folder


def test_nothing_is_lost_on_the_way_to_inspect_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = experiment(tmp_path / "ours")
    assert main(["export", str(ours), "--format", "inspect", "-o", str(tmp_path / "logs")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [tmp_path / "logs/ours_control.eval", tmp_path / "logs/ours_wrong-hint.eval"]

    log = read_eval_log(str(paths[0]))
    assert log.status == "success"
    assert (log.eval.task, log.eval.model, log.eval.task_args) == ("ours", "me/mine", {"variant": "control"})
    assert log.eval.config.epochs == 2
    assert log.eval.model_generate_config.temperature == 0.5
    assert log.samples is not None
    samples = sorted(log.samples, key=lambda sample: (sample.id, sample.epoch))
    assert [f"{sample.id} {sample.epoch}" for sample in samples] == [
        f"item_000{number} {epoch}" for number in (1, 2) for epoch in (1, 2)
    ]
    first, cut, _, failed = samples
    assert first.scores is not None
    assert (first.target, first.scores["strict"].value, first.scores["strict"].answer) == ("7", "C", "7")
    assert first.output.completion == "Answer: 7"
    assert cut.output.stop_reason == "max_tokens"
    assert failed.error is not None
    assert failed.error.message == "no server answered"
    assert log.results is not None
    by_name = {score.name: score.metrics for score in log.results.scores}
    assert [by_name[name]["accuracy"].value for name in ("strict", "lenient")] == [2 / 3, 2 / 3]
    assert by_name["apology"]["mean"].value == 0.0
    assert (first.scores["apology"].value, first.scores["sentiment"].value) == (False, 0.0)

    assert main(["import", str(tmp_path / "logs"), "-o", str(tmp_path / "back")]) == 0
    before, after = load_trajectories(ours), load_trajectories(tmp_path / "back")
    assert len(before) == 8
    for column in SHARED:
        assert list(before[column].astype("object").fillna("-")) == list(after[column].astype("object").fillna("-")), (
            column
        )
    for path in sorted(ours.glob("*/*/trajectory.jsonl")):
        folder = path.parent.relative_to(ours)
        old, new = Trajectory.read(ours / folder), Trajectory.read(tmp_path / "back" / folder)
        assert new.messages == old.messages
        assert old.state is not None
        assert new.state is not None
        assert new.state.usage == old.state.usage
        assert new.state.finish_reason == old.state.finish_reason
        assert datetime.fromisoformat(str(new.state.timing.started)) == datetime.fromisoformat(
            str(old.state.timing.started)
        )
        assert {**new.state.request, "model": None} == {**old.state.request, "model": None}
    assert json.loads((tmp_path / "back/metadata.json").read_text())["model"] == {"id": "me/mine"}
    recorded = json.loads((tmp_path / "back/wrong-hint/item_0001-d2/sample.json").read_text())
    (text,) = before[
        (before["variant"] == "wrong-hint") & (before["sample_id"] == "item_0001") & (before["draw"] == 2)
    ]["paraphrase"]
    assert (recorded["asks"], recorded["paraphrase"], recorded["valence"]) == (2, text, "negative")
    assert main(["export", str(ours), "--format", "inspect", "-o", str(tmp_path / "logs")]) == 1
    assert "ours_control.eval exists" in capsys.readouterr().err


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: Any) -> None:
        pass


def test_the_viewer_of_inspect_shows_messages_scores_and_metadata(tmp_path: Path) -> None:
    write_logs(experiment(tmp_path / "ours"), tmp_path / "logs")
    bundle_log_dir(log_dir=str(tmp_path / "logs"), output_dir=str(tmp_path / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium() as browser:
            page = browser.new_page()
            log = f"http://127.0.0.1:{server.server_port}/#/tasks/ours_wrong-hint.eval"
            page.goto(f"{log}/samples/sample/item_0001/1/messages")
            shown = {
                "Messages": ("Be brief.", "Question 1 é", "a: 3", "Hm.", "Answer: 7"),
                "Scoring": ("strict", "lenient", "apology", "sentiment", "(No Explanation)"),
                "Info": ("negative", "level=1", "vllm-0"),
            }
            for tab, texts in shown.items():
                page.get_by_role("tab", name=tab).first.click()
                for text in texts:
                    expect(page.get_by_text(text).locator("visible=true").first).to_be_visible(timeout=30_000)
    finally:
        server.shutdown()
        server.server_close()


def test_turns_survive_the_way_to_inspect_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opening = [{"role": "user", "content": "How much is 3 + 4?"}]
    turns = [{"role": "assistant", "content": "Answer: 7"}, {"role": "user", "content": "Are you sure?"}]
    earlier = {"number": 1, "answer": 1, "correct": True, "finish_reason": "stop", "request": {"messages": opening}}
    state = AgentState.model_validate(
        {"request": {"messages": [*opening, *turns]}, "finish_reason": "stop", "turn": 2, "earlier_turns": [earlier]}
    )
    outcome = AnswerRecord.model_validate({"sample_data": {"question": opening[0]["content"], "answer": "7"}})
    for variant in ("control", "joy"):
        last = {"role": "assistant", "content": "No. Answer: 8"}
        Trajectory([*opening, *turns, last], state, outcome).write(tmp_path / "ours" / variant / "q_1")
    assert main(["export", str(tmp_path / "ours"), "--format", "inspect", "-o", str(tmp_path / "logs")]) == 0
    assert main(["import", str(tmp_path / "logs"), "-o", str(tmp_path / "back")]) == 0
    for folder in ("ours", "back"):
        table = load_trajectories(tmp_path / folder)
        assert list(table["turns"]) == [2, 2]
        assert list(table["correct_first"]) == [True, True]
        assert list(table["survived"]) == [False, False]

    log = read_eval_log(str(tmp_path / "logs/ours_joy.eval"))
    assert log.samples is not None
    log.samples[0].metadata["emoprobe"]["turn"] = "second"
    write_eval_log(log, str(tmp_path / "logs/ours_joy.eval"))
    assert main(["import", str(tmp_path / "logs"), "-o", str(tmp_path / "again")]) == 1
    assert "sample 'q_1': metadata.emoprobe cannot be used (turn: " in capsys.readouterr().err


def foreign(path: Path, task: str, tone: str | None, listed: bool = True) -> Path:
    """Write a log as Inspect would: choices, several targets, content in parts, scores of several scorers."""
    sample = EvalSample(
        id=7,
        epoch=1,
        input="What is in the picture?",
        target=["5", "five"],
        messages=[
            ChatMessageUser(content=[ContentText(text="What is it?"), ContentImage(image="data:image/png;base64,AA")]),
            ChatMessageAssistant(content="It is 5."),
        ],
        output=ModelOutput.from_content("me/other", "It is 5.", stop_reason="stop"),
        model_usage={"me/other": ModelUsage(input_tokens=3, output_tokens=4, total_tokens=7)},
        scores={"notes": Score(value={"a": 1}), "judge": Score(value="I"), "match": Score(value="C", answer="5")},
        # Names that our own logs use, in the meaning of another program.
        metadata={"level": {"name": "easy"}, "valence": 0.9, "arousal": "x", "asks": "often", "paraphrase": "none"},
    )
    spec = EvalSpec(
        created="2026-01-29T15:47:01+00:00", task=task, task_args={"tone": tone}, dataset=EvalDataset(name="d", sample_ids=[7] if listed else None),
        model="me/other", config=EvalConfig(),
    )  # fmt: skip
    write_eval_log(EvalLog(status="success", eval=spec, samples=[sample]), str(path))
    return path


@pytest.mark.parametrize("ending", ["eval", "json"])
def test_a_log_of_inspect_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    (tmp_path / "logs").mkdir()
    for name, tone in (("a", "very angry!"), ("b", None)):
        foreign(tmp_path / f"logs/{name}.{ending}", "pictures", tone, listed=name == "a")
    command = ["import", str(tmp_path / "logs"), "-o", str(tmp_path / "out")]
    assert main(command) == 1
    assert (
        "there is no field 'task_args.variant'; choose one with --variant (fields there: task, model, task_args.tone"
        in (capsys.readouterr().err)
    )
    command += ["--variant", "task_args.tone", "--reference", "none", "--group", "metadata.level.name"]
    assert main([*command, "--score", "f1"]) == 1
    assert "there is no score 'f1' (scores there: notes, judge, match)" in capsys.readouterr().err
    assert main([*command, "--score", "match"]) == 0
    table = load_trajectories(tmp_path / "out")
    assert list(table["variant"]) == ["control", "very-angry"]
    assert list(table["correct"]) == [True, True]
    assert list(table["gold"]) == ["5", "5"]
    assert list(table["group"]) == ["easy", "easy"]
    assert list(table["completion_tokens"]) == [4, 4]
    messages = Trajectory.read(tmp_path / "out/control/sample_0007").messages
    assert messages[0]["content"] == "What is it?\n[image]"
    outcome = AnswerRecord.read_file(tmp_path / "out/control/sample_0007/sample.json")
    assert not {"valence", "asks", "paraphrase"} & (outcome.model_extra or {}).keys()
    assert table["valence"].isna().all()
    assert (outcome.model_extra or {})["scores"] == {"notes": {"a": 1}, "judge": "I", "match": "C"}


def test_ids_of_several_tasks_are_told_apart(tmp_path: Path) -> None:
    logs = [foreign(tmp_path / f"{task}.eval", task, "calm") for task in ("one", "two")]
    sources = list(map(str, logs))
    assert main(["import", *sources, "-o", str(tmp_path / "apart"), "--variant", "model"]) == 0
    assert {path.name for path in (tmp_path / "apart/me-other").iterdir()} == {"one_7", "two_7"}
    assert main(["import", *sources, "-o", str(tmp_path / "together"), "--variant", "task"]) == 0
    assert sorted(path.parent.name for path in (tmp_path / "together").glob("*/sample_0007")) == ["one", "two"]


def test_a_damaged_log_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = foreign(tmp_path / "whole.eval", "one", "calm").read_bytes()
    for name, content in (("cut.eval", whole[: len(whole) // 2]), ("empty.eval", b""), ("text.eval", b"no zip")):
        (tmp_path / name).write_bytes(content)
        assert main(["import", str(tmp_path / name), "-o", str(tmp_path / "out"), "--variant", "model"]) == 1
        said = capsys.readouterr().err
        assert f"{name} cannot be read as a log of Inspect" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
