"""Conversations of several turns, from a client's request to the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.files import parse_config
from emoprobe.conversations.requests import request_seed, turn_seed
from emoprobe.explorer.conversations import read_conversation
from emoprobe.report.summary import records
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample, Trajectory
from emoprobe.results.verification import check_trajectory
from tests.emoprobe.workflow.stage_outputs import Scene
from tests.nnsight_server import NNsightServer
from tests.server.pool.house import House, trajectory
from tests.server.pool.test_jobs import FAST, REFUSAL, SAMPLES, ask_all, bytes_of, made_and_made_again

PAIR = ("calm", SAMPLES[0])
VARIANTS = {"control": {}, "calm": {"text": "It is a quiet day.", "turn": 2}}
SCRIPT = {"kind": "scripted", "turns": [{"text": "Try again."}, {"text": "Sure?", "prefill": "I am"}]}


def scripted(house: House, conversation: dict[str, Any] = SCRIPT, **sections: Any) -> Layout:
    variants = sections.pop("variants", VARIANTS)
    layout = house.add("one", conversation=conversation, variants=variants, **sections)
    house.stub("a").tokenizer = house.folder / "models/a/tokenizer.json"
    return layout


def roles_and_contents(found: Trajectory) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in found.messages]


def test_every_turn_is_answered_and_recorded(house: House) -> None:
    layout = scripted(house)
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    found = trajectory(layout, *PAIR)
    assert found.state is not None
    assert [message["role"] for message in found.messages] == ["system", *(["user", "assistant"] * 3)]
    user = [content for role, content in roles_and_contents(found) if role == "user"]
    assert user[1:] == ["It is a quiet day.\n\nTry again.", "Sure?"]
    assert "quiet" not in user[0]
    assert found.messages[-1]["content"].startswith("I amI think about it")
    earlier, requests = found.state.earlier_turns, house.stub("a").requests
    assert earlier is not None
    assert ([turn.number for turn in earlier], found.state.turn) == ([1, 2], 3)
    # All that the model was given is in the record: the tokens of each prompt, and the messages that they came from.
    prompts = [*(turn.prompt_token_ids for turn in earlier), found.state.prompt_token_ids]
    assert prompts == [request["prompt"] for request in requests]
    for turn, request in zip(earlier, requests, strict=False):
        said = [message["content"] for message in found.messages[: turn.answer]]
        assert all(content in bytes_of(request["prompt"]) for content in said)
        assert found.messages[turn.answer]["content"] not in bytes_of(request["prompt"])
        assert (turn.finish_reason, turn.worker_id, len(turn.attempts)) == ("stop", "vllm-0", 1)
        assert turn.usage.completion_tokens == 32
    first = request_seed(42, SAMPLES[0])
    assert [request["seed"] for request in requests] == [first, turn_seed(first, 2), turn_seed(first, 3)]
    assert len({request["seed"] for request in requests}) == 3
    assert check_trajectory(layout.pair(*PAIR), *PAIR).problems == []


def test_a_conversation_is_made_again_byte_for_byte(house: House) -> None:
    assert len(made_and_made_again(house, scripted(house), PAIR)) == 1


@pytest.mark.parametrize("kind", ["reset", "status", "truncated"])
def test_a_server_that_dies_in_a_later_turn_costs_that_turn_alone(house: House, kind: str) -> None:
    layout = scripted(house, workers={"count": 2})
    fault = {"kind": kind, "status": 503, "match": "Try again."}
    assert ask_all(house, [("generate", "one", *PAIR)], fault) == ["ok\n"]
    state = trajectory(layout, *PAIR).state
    assert state is not None
    assert state.earlier_turns is not None
    first, second = state.earlier_turns
    assert (len(first.attempts), len(second.attempts), len(state.attempts)) == (1, 2, 1)
    assert {attempt.worker for attempt in second.attempts} == {"vllm-0", "vllm-1"}
    assert len(house.stub("a").requests) == 4


def test_a_turn_that_no_server_answers_makes_a_record_of_the_error(house: House) -> None:
    layout = scripted(house, generation={"allowed_failures": 0.25}, **FAST)
    assert ask_all(house, [("generate", "one", *PAIR)], REFUSAL | {"match": "Sure?"}) == ["ok\n"]
    found = trajectory(layout, *PAIR)
    assert found.state is not None
    assert found.failure is not None
    assert (found.state.turn, len(found.state.earlier_turns or [])) == (3, 2)
    assert found.messages[-2:] == [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": ""}]
    assert check_trajectory(layout.pair(*PAIR), *PAIR).problems == []


def right(messages: list[dict[str, Any]]) -> bool:
    """A rule that always holds, and changes what it is given."""
    assert messages[-1]["role"] == "assistant"
    messages.clear()  # a rule has a copy
    return True


@pytest.mark.parametrize(
    ("gold", "taken"), [("right", ["Well done.", "Really?"]), ("wrong", ["That is wrong.", "Really?"])]
)
def test_a_turn_whose_rule_does_not_hold_is_skipped(house: House, gold: str, taken: list[str]) -> None:
    turns = [
        {"text": "That is wrong.", "when": "after_wrong"},
        {"text": "Well done.", "when": "after_right"},
        {"text": "Really?", "when": f"{__name__}:right"},
    ]
    variants = {"control": {}, "calm": {"text": "It is a quiet day.", "turn": "last", "placement": "user_suffix"}}
    layout = scripted(house, {"kind": "scripted", "turns": turns}, variants=variants)
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    answer = trajectory(layout, *PAIR).messages[2]["content"].rpartition(" ")[2]
    sample = Sample.read(layout.sample(SAMPLES[0]))
    other = answer if gold == "right" else str((int(answer) + 1) % 10)
    sample.model_copy(update={"answer": other}).write(layout.sample(SAMPLES[0]))
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    found = trajectory(layout, *PAIR)
    user = [content for role, content in roles_and_contents(found) if role == "user"]
    assert user[1:] == [taken[0], f"{taken[1]}\n\nIt is a quiet day."]
    assert found.state is not None
    assert [turn.number for turn in found.state.earlier_turns or []] == [1, 3 if gold == "right" else 2]
    assert found.state.turn == 4
    assert found.state.message_spans is not None
    assert found.state.message_spans.prefix == (5, len("Really?\n\n"), len(user[-1]))
    row = trajectory_table(layout.root, [PAIR]).iloc[0]
    assert (row["turns"], row["correct_first"]) == (3, gold == "right")
    # Without the grader `number` no answer has a grade, the first one neither.
    ungraded = trajectory_table(layout.root, [PAIR], parse_config({"graders": ["refusal"]})).iloc[0]
    assert (ungraded["turns"], ungraded["outcome_refusal"]) == (3, False)
    assert ungraded[["correct", "correct_first", "survived"]].isna().all()


def test_activations_of_every_turn_come_from_one_pass(house: House) -> None:
    layout = scripted(house, capture={"enabled": True, "positions": ["turn1.response_mean", "response_mean"]})
    assert ask_all(house, [("generate", "one", *PAIR), ("capture", "one", *PAIR)]) == ["ok\n", "ok\n"]
    found, asked = trajectory(layout, *PAIR), house.stub("a").requests[-1]
    assert found.state is not None
    assert asked["prompt"] == found.state.token_ids
    turns = asked["ndif"]["turns"]
    for number, answer in (("1", 2), ("2", 4)):
        start, end = turns[number]
        assert bytes_of(asked["prompt"][start:end]) == found.messages[answer]["content"]
    assert turns["3"] == [asked["ndif"]["prompt_tokens"], len(asked["prompt"])]
    start, end = asked["ndif"]["token_spans"]["prefix"]
    assert bytes_of(asked["prompt"][start:end]) == "It is a quiet day."
    start, end = asked["ndif"]["token_spans"]["question"]
    assert bytes_of(asked["prompt"][start:end]) == "0 + 1?"


def test_a_conversation_that_generates_and_captures_is_captured_after_its_last_turn(house: House) -> None:
    layout = scripted(house, generation={"backend": "nnsight"}, capture={"enabled": True})
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    *turns, capture = house.stub("a").requests
    assert [len(turns), *(request.get("ndif") for request in turns)] == [3, None, None, None]
    assert capture["max_tokens"] == 0
    state = trajectory(layout, *PAIR).state
    assert state is not None
    assert capture["prompt"] == state.token_ids


def test_positions_of_turns_are_means_over_their_tokens(
    tiny: Callable[[str], Path], nnsight_server: Callable[[str], NNsightServer]
) -> None:
    server, model = nnsight_server("llama"), tiny("llama")
    where = {"layers": [1], "hook_points": ["resid_post"], "dtype": "float32"}
    names = ["turn1.response_mean", "turn2.last_prompt", "turn3.response_mean", "response_mean"]
    found = {}
    for name, positions in (("named", names), ("every", "all")):
        sections = {"conversation": SCRIPT, "steering": {}, "capture": {**where, "positions": positions}}
        scene = Scene.make(model, server.url, server.root, **{**sections, "experiment": {"name": f"turns-{name}"}})
        state = scene.answer("control", "q_0001")
        folder = scene.experiment.layout.activations("control", "q_0001")
        values = load_file(folder / "activations.safetensors")["resid_post"]
        found[name] = values, json.loads((folder / "metadata.json").read_text()), state.token_ids
    (values, metadata, ids), (tokens, _, others) = found["named"], found["every"]
    assert ids == others
    spans = {int(number): slice(*span) for number, span in metadata["spans"]["turns"].items()}
    assert spans.keys() == {1, 2, 3}
    expected = [tokens[:, spans[1]].mean(1), tokens[:, spans[2].start - 1]] + [tokens[:, spans[3]].mean(1)] * 2
    np.testing.assert_allclose(values, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_the_explorer_shows_every_message_and_marks_the_text_in_its_turn(house: House) -> None:
    layout = scripted(house)
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    config = parse_config({"conversation": SCRIPT, "variants": VARIANTS})
    (row,) = records(trajectory_table(layout.root, [PAIR], config))
    shown = read_conversation(layout.pair(*PAIR), row)
    assert [message.role for message in shown.messages] == ["system", *(["user", "assistant"] * 3)]
    assert (shown.response, shown.tone, shown.question is not None) == (6, (3, 0, len("It is a quiet day.")), True)


def test_the_states_of_single_conversations_have_no_fields_of_turns(house: House) -> None:
    layout = house.add("one")
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    assert '"turn"' not in (Path(layout.pair(*PAIR)) / "agent_state.json").read_text()
    row = trajectory_table(layout.root, [PAIR]).iloc[0]
    assert (row["turns"], row["correct_first"]) == (1, row["correct"])
