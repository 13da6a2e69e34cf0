"""p(gold) of trajectories: forms, contexts, files, and equality with Hugging Face's log-softmax."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.files import load_config
from emoprobe.config.science.graders import LogprobGrader
from emoprobe.conversations.scoring import answer_context, forced_forms, joined
from emoprobe.conversations.thoughts import FAMILIES, ThoughtMarkers
from emoprobe.models.tokens import encoder
from emoprobe.results.record import content_sha256
from emoprobe.results.trajectory import AgentState, GoldProbability, Sample, Thought
from emoprobe.results.verification import check_outcomes
from server.pool import outcomes
from tests.emoprobe.workflow.stage_outputs import Scene
from tests.nnsight_server import NNsightServer
from tests.server.pool.house import House

FORMS = {"name": "logprob", "lead": "Answer:", "gold": [" {answer}", " **{answer}**", " {answer}0"]}


def encode(texts: Any) -> list[list[int]]:
    """A token a character."""
    return [[ord(character) for character in text] for text in texts]


def test_forms_are_encoded_with_the_lead_and_count_once() -> None:
    settings = LogprobGrader(lead="Answer:", gold=[" {answer}0", " {answer}", "{answer}"])
    forms = forced_forms(encode, settings, "7", before="\n\n")
    # " 70" begins with " 7", whose probability holds that of " 70" already.
    assert [form.text for form in forms] == [" 7", "7"]
    assert [len(form.tokens) - form.given for form in forms] == [2, 1]
    assert all(form.tokens[: form.given] == encode(["\n\nAnswer:"])[0] for form in forms)


def test_a_form_without_a_token_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adds no token to the lead"):
        forced_forms(lambda texts: [[1] for _ in texts], LogprobGrader(), "7")


@pytest.mark.parametrize(
    ("thought", "completion", "context", "between"),
    [
        (None, [5, 6], [1, 2], ""),
        (Thought(tokens=(2, 4), ended="model"), [5, 6, 9, 7], [1, 2, 5, 6, 9], "\n\n"),
        (Thought(tokens=(2, 4), ended="budget"), [5, 6, 9, 7], [1, 2, 5, 6, 9], "\n\n"),
        (Thought(tokens=(2, 2), ended="model"), [9, 7], [1, 2, 9], "\n\n"),
    ],
)
def test_an_answer_follows_the_prompt_or_the_thought(
    thought: Thought | None, completion: list[int], context: list[int], between: str
) -> None:
    markers = ThoughtMarkers(FAMILIES[0], begin=(8,), close=(9,), answer=(9,))
    state = AgentState(prompt_token_ids=[1, 2], completion_token_ids=completion, thought=thought)
    assert answer_context(state, markers) == (context, between)


def test_a_thought_without_an_end_has_no_answer() -> None:
    markers = ThoughtMarkers(FAMILIES[0], begin=(8,), close=(9,), answer=(9,))
    state = AgentState(prompt_token_ids=[1], completion_token_ids=[5], thought=Thought(tokens=(1, 2)))
    assert answer_context(state, markers) is None


def test_probabilities_add_up() -> None:
    assert joined([-1000.0, -1000.0]) == pytest.approx(-1000 + torch.log(torch.tensor(2.0)).item())
    assert joined([0.0, 0.0]) == 0.0  # no rounding makes more than a certain answer of two


def test_p_gold_is_that_of_hugging_face(
    tiny: Callable[[str], Path], nnsight_server: Callable[[str], NNsightServer]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    server, directory = nnsight_server("llama"), tiny("llama")
    scene = Scene.make(directory, server.url, server.root, experiment={"name": "p_gold"}, graders=["number", FORMS])
    layout = scene.experiment.layout
    state = scene.answer("joy", "q_0002")
    asyncio.run(outcomes.measure(scene.experiment, scene.fleet, "joy", "q_0002"))
    found = GoldProbability.read_file(layout.pair("joy", "q_0002") / "outcomes.json")

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    gold, expected = Sample.read(layout.sample("q_0002")).answer, []
    for form in (f" {gold}", f" **{gold}**"):
        lead, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Answer:", f"Answer:{form}"))
        assert ids[: len(lead)] == lead
        prompt = list(state.prompt_token_ids or [])
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([prompt + ids])).logits[0], dim=-1)
        places = range(len(prompt) + len(lead), len(prompt) + len(ids))
        expected.append(sum(logs[at - 1, (prompt + ids)[at]].item() for at in places))
    assert [form.log_p for form in found.forms] == pytest.approx(expected, abs=1e-4)
    assert found.log_p_gold == pytest.approx(torch.logsumexp(torch.tensor(expected), 0).item(), abs=1e-4)
    assert (found.after, found.lead, found.context_tokens) == ("prompt", "Answer:", len(prompt))
    assert check_outcomes(layout.pair("joy", "q_0002"), state) == []


def ask(house: House, *names: str, fault: dict[str, Any] | None = None) -> list[str]:
    async def scenario() -> list[str]:
        house.stub("a").faults = [dict(fault)] if fault else []
        async with house.pool():
            return [await house.ask(kind, "one", "calm", name) for name in names for kind in ("generate", "outcomes")]

    return asyncio.run(scenario())


def test_the_generating_server_is_asked_about_the_stored_prompt(house: House) -> None:
    layout = house.add("one", graders=["number", {"name": "logprob", "gold": [" {answer}", " is {answer}"]}])
    assert set(ask(house, "gsm8k_0001")) == {"ok\n"}
    assert [line for line in house.diary if line.startswith("start")] == ["start vllm a"]
    answer, *scored = house.stub("a").requests
    state = json.loads((layout.pair("calm", "gsm8k_0001") / "agent_state.json").read_text())
    forms = encoder(Path(json.loads(layout.model.read_text())["path"]))(["Answer: 3", "Answer: is 3"])
    assert [one["prompt"] for one in scored] == [[*answer["prompt"], *form] for form in forms]
    assert scored[0].keys() == {"model", "prompt", "max_tokens", "echo", "logprobs"}
    found = GoldProbability.read_file(layout.pair("calm", "gsm8k_0001") / "outcomes.json")
    assert [(form.tokens, form.log_p) for form in found.forms] == [(2, -1.0), (5, -2.5)]
    assert found.log_p_gold == pytest.approx(joined([-1.0, -2.5]))
    assert found.context_sha256 == content_sha256({"token_ids": state["prompt_token_ids"]})


def test_options_are_scored_once_for_all_graders_that_read_them(house: House) -> None:
    norm = {"name": "choice", "label": "norm", "normalise": "characters"}
    data = {"samples": 4, "choices": "options"}
    layout = house.add("one", graders=["choice", norm, "logprob"], dataset=data)
    sample = Sample.read(layout.sample("gsm8k_0001")).model_copy(update={"answer": "B", "choices": ["no", "very sure"]})
    sample.write(layout.sample("gsm8k_0001"))
    assert set(ask(house, "gsm8k_0001")) == {"ok\n"}
    answer, *scored = house.stub("a").requests
    forms = encoder(Path(json.loads(layout.model.read_text())["path"]))(
        ["Answer: B", "Answer: no", "Answer: very sure"]
    )
    assert [one["prompt"] for one in scored] == [[*answer["prompt"], *form] for form in forms]
    found = GoldProbability.read_file(layout.pair("calm", "gsm8k_0001") / "outcomes.json")
    assert [(one.text, one.tokens, one.log_p) for one in found.options or []] == [
        (" no", 3, -1.5),
        (" very sure", 10, -5.0),
    ]
    assert (found.options_lead, found.log_p_gold) == ("Answer:", -1.0)
    config = load_config(house.plan / "one.json")
    folder = layout.pair("calm", "gsm8k_0001")
    table = trajectory_table(layout.root, [("calm", "gsm8k_0001")], config)
    assert table[["outcome_choice", "outcome_norm"]].to_dict("records") == [
        {"outcome_choice": False, "outcome_norm": True}
    ]
    assert check_outcomes(folder, AgentState.read_file(folder / "agent_state.json")) == []
    # A file of the grader `logprob` alone is as it was before there were options.
    assert "options" not in GoldProbability(lead="", log_p_gold=-1.0).values()


def test_a_failed_request_is_recorded_within_the_allowed_failures(house: House) -> None:
    layout = house.add(
        "one", graders=["number", "logprob"], generation={"allowed_failures": 0.2}, workers={"attempts": 2}
    )
    fault = {"kind": "status", "status": 500, "match": '"echo"', "times": 999}
    first, second, third, fourth = ask(house, "gsm8k_0001", "gsm8k_0002", fault=fault)
    assert (first, second, third) == ("ok\n", "ok\n", "ok\n")
    assert "allows 1 of 8 pairs to fail" in fourth
    found = GoldProbability.read_file(layout.pair("calm", "gsm8k_0001") / "outcomes.json")
    assert found.error is not None
    assert found.log_p_gold is None
    assert not (layout.pair("calm", "gsm8k_0002") / "outcomes.json").exists()


def test_a_changed_file_is_noticed(house: House) -> None:
    layout = house.add("one", graders=["number", "logprob"])
    ask(house, "gsm8k_0001")
    folder = layout.pair("calm", "gsm8k_0001")
    path, state = folder / "outcomes.json", AgentState.read_file(folder / "agent_state.json")
    assert check_outcomes(folder, state) == []
    written = path.read_text()
    path.write_text(written.replace('"log_p_gold": -1.0', '"log_p_gold": -0.5'))
    assert "was changed after it was written" in check_outcomes(folder, state)[0]
    path.write_text(written)
    other = state.model_copy(update={"prompt_token_ids": [1, *(state.prompt_token_ids or [])]})
    assert "made from another answer" in check_outcomes(folder, other)[0]
    path.unlink()
    assert "is missing" in check_outcomes(folder, state)[0]


def test_an_experiment_without_the_grader_has_nothing_to_measure(house: House) -> None:
    house.add("one")
    assert "graders contains neither logprob nor choice" in ask(house, "gsm8k_0001")[1]
