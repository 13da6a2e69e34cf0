"""Requests, and the three files that a response becomes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.files import parse_config
from emoprobe.conversations.rendering import RenderedPrompt
from emoprobe.conversations.requests import chat_request, request_seed
from emoprobe.conversations.responses import (
    Delivery,
    OtherPromptError,
    ResponseError,
    check_response,
    completed,
    failed,
)
from emoprobe.conversations.samples import draw_id
from emoprobe.results import activations, atomic
from emoprobe.results.activation_folder import ActivationError, ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import manifest
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import Attempt, Sample, Trajectory
from emoprobe.results.verification import check_trajectory, verify

CONFIG = parse_config(
    {"experiment": {"name": "tiny"}, "variants": {"control": {}, "calm": {"text": "Be calm.", "valence": "neutral"}}}
)
SAMPLE = Sample(sample_id="gsm8k_0001", index=0, question="What is 1 + 1?", answer="2", source={"row": 0})
DELIVERY = Delivery("vllm-0", [Attempt(worker="vllm-0")], "2026-01-01T00:00:00+00:00", 0.5)


PROMPT = RenderedPrompt("Be calm.\n\nWhat is 1 + 1?", [1, 2, 3, 4])


def response(text: str = "Answer: 2") -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "choices": [
            {"text": text, "finish_reason": "stop", "token_ids": [5, 6, 2], "prompt_token_ids": [1, 2, 3, 4]},
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7},
    }


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    return check_response(answer, PROMPT.token_ids)


def write(
    tmp_path: Path, answer: dict[str, Any], delivery: Delivery = DELIVERY, prompt: RenderedPrompt = PROMPT
) -> Path:
    layout = Layout(tmp_path / "tiny")
    request = chat_request(CONFIG, "m", "calm", SAMPLE)
    folder = layout.pair("calm", "gsm8k_0001")
    completed(CONFIG, "calm", SAMPLE, request, prompt, checked(answer), delivery).write(folder)
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
    assert state["request"]["messages"] == lines[:-1]
    assert (state["prompt_text"], state["date"], state["prefill"]) == (PROMPT.text, "2024-07-26", None)
    assert "token_ids" not in json.dumps(state["response"])


@pytest.mark.parametrize("ids", [["5", "6", "2"], [5.0, 6.0, 2.0], "562", [True, 6, 2], {"5": 6}])
def test_token_ids_that_are_no_whole_numbers_are_refused(ids: Any) -> None:
    for name in ("token_ids", "prompt_token_ids"):
        answer = response()
        answer["choices"][0][name] = ids
        with pytest.raises(ResponseError, match="no whole numbers"):
            checked(answer)


def test_a_server_may_count_less(tmp_path: Path) -> None:
    answer = response() | {"usage": {"completion_tokens": 3}}
    state = Trajectory.read(write(tmp_path, answer)).state
    assert state is not None
    assert (state.usage.completion_tokens, state.usage.total_tokens) == (3, None)


def test_a_prefill_and_the_completion_are_one_answer(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    begun = {"role": "assistant", "content": "So, Answer:"}
    request = chat_request(CONFIG, "m", "calm", SAMPLE)
    request["messages"] = [*request["messages"], begun]
    folder = layout.pair("calm", "gsm8k_0001")
    prompt = RenderedPrompt("… So, Answer:", [1, 2, 3, 4], prefill="So, Answer:")
    completed(CONFIG, "calm", SAMPLE, request, prompt, checked(response(" 2")), DELIVERY).write(folder)
    found = Trajectory.read(folder)
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant"]
    assert found.completion == "So, Answer: 2"
    assert found.state is not None
    assert found.state.prefill == len("So, Answer:")
    assert found.state.request["messages"][-1] == begun
    assert json.loads((folder / "sample.json").read_text())["metrics"]["correctness"] == 1.0
    checked_again = check_trajectory(folder, "calm", "gsm8k_0001")
    assert (checked_again.problems, checked_again.tokens) == ([], [1, 2, 3, 4, 5, 6, 2])
    Trajectory([*found.messages[:-1], {"role": "assistant", "content": "Answer: 2"}], found.state, found.outcome).write(
        folder
    )
    assert "disagree" in check_trajectory(folder, "calm", "gsm8k_0001").problems[0]


def test_the_record_of_an_error_ends_with_one_empty_answer_after_a_prefill_too(tmp_path: Path) -> None:
    request = chat_request(CONFIG, "m", "calm", SAMPLE)
    request["messages"] = [*request["messages"], {"role": "assistant", "content": "So,"}]
    made = failed(CONFIG, "calm", SAMPLE, request, PROMPT, "status 500", [])
    assert [message["role"] for message in made.messages] == ["system", "user", "assistant"]
    assert made.completion == ""


def test_a_trajectory_holds_nothing_that_differs_between_runs(tmp_path: Path) -> None:
    first = write(tmp_path / "a", response())
    other = {**response(), "id": "chatcmpl-2", "created": 99}
    second = write(tmp_path / "b", other, Delivery("vllm-1", [Attempt(), Attempt()], "2027-01-01T00:00:00+00:00", 9.0))
    assert (first / "trajectory.jsonl").read_bytes() == (second / "trajectory.jsonl").read_bytes()
    assert (first / "agent_state.json").read_bytes() != (second / "agent_state.json").read_bytes()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_separate_reasoning_of_older_records_is_read_where_there_is_no_answer(tmp_path: Path, field: str) -> None:
    folder = tmp_path / "calm" / "gsm8k_0001"
    for content, read in (("Answer: 2", "2"), ("", "3")):
        answer = {"role": "assistant", "content": content, field: "Answer: 3"}
        Trajectory([{"role": "user", "content": "1 + 1?"}, answer]).write(folder)
        assert json.loads((folder / "trajectory.jsonl").read_text().splitlines()[-1]) == answer
        assert trajectory_table(tmp_path, [("calm", "gsm8k_0001")]).iloc[0]["extracted"] == read


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer.pop("choices"),
        lambda answer: answer["choices"].clear(),
        lambda answer: answer["choices"][0].pop("text"),
        lambda answer: answer["choices"][0].update(text=None),
        lambda answer: answer["choices"][0].update(token_ids=[]),
        lambda answer: answer["choices"][0].update(token_ids=None),
        lambda answer: answer["choices"][0].update(finish_reason=None),
        lambda answer: answer["choices"][0].update(finish_reason="abort"),
        lambda answer: answer["choices"][0].update(prompt_token_ids=None),
        lambda answer: answer["usage"].update(completion_tokens=7),
        lambda answer: answer.pop("usage"),
    ],
)
def test_answers_that_are_no_completion(spoil: Any) -> None:
    answer = response()
    spoil(answer)
    with pytest.raises(ResponseError):
        checked(answer)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [([1, 2, 9, 4], "differ from token 2 on"), ([0, 1, 2, 3, 4], "from token 0"), ([1, 2, 3], "the beginning")],
)
def test_an_answer_to_another_prompt_is_refused(prompt: list[int], words: str) -> None:
    answer = response()
    answer["choices"][0]["prompt_token_ids"] = prompt
    with pytest.raises(OtherPromptError, match=words):
        checked(answer)


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


@pytest.mark.parametrize(
    "content", ["", "\n", "{", "[1]\n", '{"content": "x"}\n', "\xff", '{"role": "user", "content": "\\ud83d"}\n']
)
def test_damaged_trajectories_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "control" / "q1" / "trajectory.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=str(path)):
        trajectory_table(tmp_path, [("control", "q1")])


def test_draws_differ_in_their_seed_alone() -> None:
    first, second = (chat_request(CONFIG, "m", "calm", SAMPLE, draw) for draw in (1, 2))
    assert first == chat_request(CONFIG, "m", "calm", SAMPLE)
    assert first["seed"] == request_seed(42, "gsm8k_0001") == 999242597
    assert {key for key in first if first[key] != second[key]} == {"seed"}
    seeds = {request_seed(42, sample, draw) for sample in ("x_0001", "x_0002") for draw in range(1, 200)}
    assert len(seeds) == 398


def test_the_table_tells_draws_of_a_question_apart(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    sample = SAMPLE.model_copy(update={"group": "sums"})
    sample.write(layout.sample("gsm8k_0001"))
    for draw in (1, 2):
        request = chat_request(CONFIG, "m", "calm", sample, draw)
        answer = checked(response(f"Answer: {draw}"))
        completed(CONFIG, "calm", sample, request, PROMPT, answer, DELIVERY, draw=draw).write(
            layout.pair("calm", draw_id("gsm8k_0001", draw))
        )
    assert check_trajectory(layout.pair("calm", "gsm8k_0001-d2"), "calm", "gsm8k_0001-d2")[0] == []
    assert json.loads((layout.pair("calm", "gsm8k_0001-d2") / "sample.json").read_text())["sample_data"] == {
        "question": "What is 1 + 1?",
        "answer": "2",
        "sample_id": "gsm8k_0001",
    }
    table = trajectory_table(tmp_path, [("calm", "gsm8k_0001"), ("calm", "gsm8k_0001-d2")], CONFIG)
    assert table["sample_id"].tolist() == ["gsm8k_0001"] * 2
    assert table["draw"].tolist() == [1, 2]
    assert table["group"].tolist() == ["sums"] * 2
    assert table["paraphrase"].tolist() == [0, 0]
    assert table["correct"].tolist() == [False, True]
    assert table["failure"].isna().all()


@pytest.mark.parametrize(
    ("content", "finish", "correct", "lenient", "extraction"),
    [
        ("Answer: 2", "stop", True, True, "marker"),
        ("Answer: 2", "length", False, True, "marker"),
        ("1 + 1 = 2", "stop", False, True, "last_number"),
        ("<think>Answer: 2", "stop", False, True, "marker"),
        ("who knows", "stop", False, False, "none"),
    ],
)
def test_the_strict_grade_goes_into_the_files_and_both_into_the_table(
    tmp_path: Path, content: str, finish: str, correct: bool, lenient: bool, extraction: str
) -> None:
    answer = response(content)
    answer["choices"][0]["finish_reason"] = finish
    folder = write(tmp_path, answer)
    assert json.loads((folder / "sample.json").read_text())["metrics"]["correctness"] == float(correct)
    row = trajectory_table(tmp_path / "tiny", [("calm", "gsm8k_0001")], CONFIG).iloc[0]
    assert (row["correct"], row["lenient"], row["extraction"]) == (correct, lenient, extraction)
    assert row["truncated"] == (finish == "length")


def test_letters_are_graded_with_and_without_the_sample_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    sample = SAMPLE.model_copy(
        update={"question": "Capital?\nA. Paris\nB. Rome", "answer": "B", "choices": ["Paris", "Rome"]}
    )
    request = chat_request(CONFIG, "m", "calm", sample)
    for name, content in (("gsm8k_0001", "Answer: Rome"), ("gsm8k_0002", "Answer: B")):
        completed(CONFIG, "calm", sample, request, PROMPT, checked(response(content)), DELIVERY).write(
            layout.pair("calm", name)
        )
    sample.write(layout.sample("gsm8k_0001"))
    table = trajectory_table(tmp_path, [("calm", "gsm8k_0001"), ("calm", "gsm8k_0002")], CONFIG)
    assert table["gold"].tolist() == table["extracted"].tolist() == ["B", "B"]
    assert table["correct"].tolist() == [True, True]
    assert json.loads((layout.pair("calm", "gsm8k_0001") / "sample.json").read_text())["extracted_answer"] == "B"


def failure(layout: Layout) -> Trajectory:
    request = chat_request(CONFIG, "m", "calm", SAMPLE)
    attempts = [Attempt(worker="vllm-0", started="2026-01-01T00:00:00+00:00", seconds=1.0, error="status 500")] * 3
    made = failed(CONFIG, "calm", SAMPLE, request, PROMPT, "no server answered: status 500", attempts)
    made.write(layout.pair("calm", "gsm8k_0001"))
    return made


def test_a_pair_that_no_server_answers_is_a_record_of_its_error(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made = failure(layout)
    folder = layout.pair("calm", "gsm8k_0001")
    read = Trajectory.read(folder)
    assert read.state is not None
    assert made.state is not None
    assert replace(read, state=read.state.model_copy(update={"hashes": made.state.hashes})) == made
    assert made.failure == "no server answered: status 500"
    lines = [json.loads(line) for line in (folder / "trajectory.jsonl").read_text().splitlines()]
    assert lines[-1] == {"role": "assistant", "content": ""}
    assert [line["role"] for line in lines] == ["system", "user", "assistant"]
    outcome = json.loads((folder / "sample.json").read_text())
    assert outcome["metrics"] == {"correctness": None, "format": None, "efficiency": None}
    assert outcome["sample_data"]["answer"] == "2"
    row = trajectory_table(tmp_path, [("calm", "gsm8k_0001")], CONFIG).iloc[0]
    assert row["failure"] == made.failure
    assert (row["question"], row["gold"], row["valence"], row["attempts"]) == ("What is 1 + 1?", "2", "neutral", 3)
    assert len(json.loads(row["failed_attempts"])) == 3
    unanswered = ["completion", "extracted", "correct", "lenient", "extraction", "compliant", "efficiency", "truncated"]
    assert row[[*unanswered, "characters", "steps", "polarity", "worker", "seconds", "completion_tokens"]].isna().all()


def captured(layout: Layout, token_ids: list[int]) -> None:
    content = save({"input.output": np.ones((1, 1, 4), dtype=np.float32)})
    folder = layout.activations("control", "gsm8k_0001")
    atomic.write_bytes(folder / "activations.safetensors", content)
    values = {
        "dtype": "float32",
        "layers": [0],
        "hook_points": ["input.output"],
        "positions": [{"name": "response_last", "span": [0, 1]}],
        "token_ids": token_ids,
        "shapes": {"input.output": [1, 1, 4]},
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    atomic.write_json(folder / "metadata.json", values)


def test_the_activations_of_a_failure_say_so_and_are_passed_over(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made = failure(layout)
    folder = ActivationFolder.write_failure(layout.activations("calm", "gsm8k_0001"), made.failure or "", "r-1")
    assert ActivationFolder.read(folder.path) == folder
    assert folder.metadata.error == made.failure
    with pytest.raises(ActivationError, match="has activations"):
        activations.load_activations(tmp_path, "input.output", "response_last")
    request = chat_request(CONFIG, "m", "control", SAMPLE)
    completed(CONFIG, "control", SAMPLE, request, PROMPT, response(), DELIVERY).write(
        layout.pair("control", "gsm8k_0001")
    )
    captured(layout, [1, 2, 3, 4, 5, 6, 2])
    found = activations.load_activations(tmp_path, "input.output", "response_last")
    assert found.index["variant"].tolist() == ["control"]
    assert found.values.shape == (1, 1, 4)
    pairs = [("control", "gsm8k_0001"), ("calm", "gsm8k_0001")]
    SAMPLE.write(layout.sample("gsm8k_0001"))
    atomic.write_json(layout.manifest, manifest(layout, pairs).model_dump(mode="json"))
    assert verify(layout, pairs, pairs).problems == []


def test_answers_and_failures_that_are_mixed_up_are_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    made = failure(layout)
    folder = layout.pair("calm", "gsm8k_0001")
    ActivationFolder.write_failure(layout.activations("control", "gsm8k_0001"), "gone")
    assert (
        "captured from other tokens" in activations.check(layout.activations("control", "gsm8k_0001"), None, [1, 2])[0]
    )
    captured(layout, [1, 2])
    assert "captured from other tokens" in activations.check(layout.activations("control", "gsm8k_0001"), None, [])[0]
    Trajectory([*made.messages[:-1], {"role": "assistant", "content": "7"}], made.state, made.outcome).write(folder)
    assert "has an answer" in check_trajectory(layout.pair("calm", "gsm8k_0001"), "calm", "gsm8k_0001")[0][0]
