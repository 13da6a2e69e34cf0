"""Requests, and the three files that a response becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.files import parse_config
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.sample import Sample
from emoprobe.results.trajectory import Attempt
from emoprobe.tasks.requests import chat_request, request_seed
from emoprobe.tasks.responses import Delivery, ResponseError, check_response, completed

CONFIG = parse_config(
    {"experiment": {"name": "tiny"}, "variants": {"control": {}, "calm": {"text": "Be calm.", "valence": "neutral"}}}
)
SAMPLE = Sample(sample_id="gsm8k_0001", index=0, question="What is 1 + 1?", answer="2", source={"row": 0})
DELIVERY = Delivery("vllm-0", [Attempt(worker="vllm-0")], "2026-01-01T00:00:00+00:00", 0.5)


def response(content: str | None = "Answer: 2", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "choices": [
            {
                "message": {"role": "assistant", "content": content, "refusal": None, "tool_calls": [], **message},
                "finish_reason": "stop",
                "token_ids": [5, 6, 2],
            }
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7},
        "prompt_token_ids": [1, 2, 3, 4],
    }


def write(tmp_path: Path, answer: dict[str, Any], delivery: Delivery = DELIVERY) -> Path:
    layout = Layout(tmp_path / "tiny")
    request = chat_request(CONFIG, "m", "calm", SAMPLE)
    folder = layout.pair("calm", "gsm8k_0001")
    completed(CONFIG, "calm", SAMPLE, request, check_response(answer), delivery).write(folder)
    return folder


def test_the_three_files(tmp_path: Path) -> None:
    folder = write(tmp_path, response())
    assert sorted(path.name for path in folder.iterdir()) == ["agent_state.json", "sample.json", "trajectory.jsonl"]
    lines = [json.loads(line) for line in (folder / "trajectory.jsonl").read_text().splitlines()]
    assert [line["role"] for line in lines] == ["system", "user", "assistant"]
    assert lines[-1] == {"role": "assistant", "content": "Answer: 2"}
    summary = json.loads((folder / "sample.json").read_text())
    assert summary["metrics"] == {"correctness": 1.0, "format": 1.0, "efficiency": round(1 - 3 / 256, 6)}
    assert summary["sample_data"] == {"question": "What is 1 + 1?", "answer": "2", "sample_id": "gsm8k_0001"}
    assert summary["extracted_answer"] == "2"
    state = json.loads((folder / "agent_state.json").read_text())
    assert state["prompt_token_ids"] == [1, 2, 3, 4]
    assert state["completion_token_ids"] == [5, 6, 2]
    assert state["request"]["seed"] == request_seed(42, "gsm8k_0001")


def test_a_trajectory_holds_nothing_that_differs_between_runs(tmp_path: Path) -> None:
    first = write(tmp_path / "a", response())
    other = {**response(), "id": "chatcmpl-2", "created": 99}
    second = write(tmp_path / "b", other, Delivery("vllm-1", [Attempt(), Attempt()], "2027-01-01T00:00:00+00:00", 9.0))
    assert (first / "trajectory.jsonl").read_bytes() == (second / "trajectory.jsonl").read_bytes()
    assert (first / "agent_state.json").read_bytes() != (second / "agent_state.json").read_bytes()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_separate_reasoning_is_kept_and_not_graded(tmp_path: Path, field: str) -> None:
    folder = write(tmp_path, response("Answer: 2", **{field: "Answer: 3"}))
    last = json.loads((folder / "trajectory.jsonl").read_text().splitlines()[-1])
    assert last == {"role": "assistant", "content": "Answer: 2", field: "Answer: 3"}
    assert json.loads((folder / "sample.json").read_text())["extracted_answer"] == "2"


def test_reasoning_alone_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, response(None, reasoning="Answer: 2"))
    assert json.loads((folder / "sample.json").read_text())["metrics"]["correctness"] == 1.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer.pop("choices"),
        lambda answer: answer["choices"].clear(),
        lambda answer: answer["choices"][0].pop("message"),
        lambda answer: answer["choices"][0].update(token_ids=[]),
        lambda answer: answer["choices"][0].update(token_ids=None),
        lambda answer: answer["choices"][0].update(finish_reason=None),
        lambda answer: answer["choices"][0].update(finish_reason="abort"),
        lambda answer: answer["choices"][0]["message"].update(role="user"),
        lambda answer: answer.update(prompt_token_ids=None),
        lambda answer: answer["usage"].update(completion_tokens=7),
        lambda answer: answer.pop("usage"),
    ],
)
def test_answers_that_are_no_completion(spoil: Any) -> None:
    answer = response()
    spoil(answer)
    with pytest.raises(ResponseError):
        check_response(answer)


def test_seeds_depend_on_experiment_and_sample_alone() -> None:
    requests = [chat_request(CONFIG, "m", name, SAMPLE) for name in ("control", "calm")]
    assert requests[0]["seed"] == requests[1]["seed"]
    assert request_seed(42, "gsm8k_0001") != request_seed(42, "gsm8k_0002") != request_seed(43, "gsm8k_0002")
    assert all(0 <= request_seed(seed, "x") < 2**31 for seed in range(200))


def test_the_table_reads_folders_of_other_programs(tmp_path: Path) -> None:
    folder = tmp_path / "control" / "q1"
    folder.mkdir(parents=True)
    (folder / "trajectory.jsonl").write_text(
        '{"role": "user", "content": "1?"}\n{"role": "assistant", "content": "7"}\n'
    )
    row = trajectory_table(tmp_path, [("control", "q1")]).iloc[0]
    assert row["extracted"] == "7"
    assert row[["correct", "gold", "worker", "completion_tokens", "truncated"]].isna().all()
    (folder / "sample.json").write_text('{"metrics": {"correctness": 1.0}}')
    assert trajectory_table(tmp_path, [("control", "q1")]).iloc[0]["correct"]


@pytest.mark.parametrize("content", ["", "{", '{"role": "user", "content": "x"}\n', "[1]\n", "\xff"])
def test_damaged_trajectories_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "control" / "q1" / "trajectory.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=str(path)):
        trajectory_table(tmp_path, [("control", "q1")])
