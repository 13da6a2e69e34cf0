"""Thoughts of three families of models: switched on and off in the prompt, and divided from the answer by tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.analysis.limits import thought_limits
from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.rendering import RenderedPrompt, Renderer
from emoprobe.conversations.requests import chat_request, message_spans, rendered_prompt
from emoprobe.conversations.responses import BUDGET_REACHED, Delivery, completed
from emoprobe.conversations.stored_spans import stored_spans
from emoprobe.models.positions import resolve
from emoprobe.report.statements.notes import notes
from emoprobe.results.activation_folder import TokenSpans
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample, Trajectory
from emoprobe.results.verification import check_trajectory
from emoprobe.workflow.prompt_checks import check_prompts, describe_prompt, thinking_warnings
from emoprobe.workflow.triggers import Triggers
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML
from tests.emoprobe.conversations.templates import R1, THINKING

SAMPLE = Sample(sample_id="sum_0001", index=0, question="What is 2 + 3?", answer="5", source={"name": "made"})
DELIVERY = Delivery("vllm-0", [], "2026-01-01T00:00:00.000+00:00", 1.0)
HEADER = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    """A renderer of each family, and one of a model that does not think."""
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {
        family: Renderer.load(byte_tokenizer.write(folder / family, template, special, added))
        for family, (template, special, added) in THINKING.items()
    }
    return made | {"none": Renderer.load(byte_tokenizer.write(folder / "none", CHATML))}


def config(thinking: Any = None, **sections: Any) -> Config:
    generation = {"thinking": thinking} | sections.pop("generation", {})
    prompt = {"template": "{question}", "system": None}
    return parse_config({"generation": generation, "prompt": prompt, **sections})


def prompt_of(renderer: Renderer, settings: Config, question: str = SAMPLE.question) -> RenderedPrompt:
    request = chat_request(settings, "m", "control", SAMPLE.model_copy(update={"question": question}))
    return rendered_prompt(settings, renderer, request)


def made(
    renderer: Renderer,
    settings: Config,
    spelled: str,
    finish: str = "stop",
    prompt: RenderedPrompt | None = None,
    **choice: Any,
) -> Trajectory:
    """The trajectory of a completion whose tokens spell a text, as a server returns it: without special tokens."""
    request = chat_request(settings, "m", "control", SAMPLE)
    prompt = prompt or rendered_prompt(settings, renderer, request)
    ids = list(renderer.encode(spelled)[0])
    answered = {"text": renderer.plain(ids), "token_ids": ids, "finish_reason": finish, **choice}
    counts = {"prompt_tokens": len(prompt.token_ids), "completion_tokens": len(ids), "total_tokens": 0}
    response = {"choices": [answered], "usage": counts}
    return completed(settings, "control", SAMPLE, request, prompt, response, DELIVERY, renderer=renderer)


def thought_of(renderer: Renderer, trajectory: Trajectory) -> str | None:
    """The text of the tokens of a trajectory's thought."""
    state = trajectory.state
    assert state is not None
    assert state.token_ids is not None
    if state.thought is None or state.thought.span is None:
        return None
    return renderer.vocabulary.decode(state.token_ids[slice(*state.thought.span)])


@pytest.mark.parametrize(
    ("family", "thinking", "end", "in_thought"),
    [
        ("qwen3", None, "<|im_start|>assistant\n", None),
        ("qwen3", "on", "<|im_start|>assistant\n", None),
        ("qwen3", {"budget": 5}, "<|im_start|>assistant\n", None),
        ("qwen3", "off", "<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("r1", None, "<|im_start|><think>\n", True),
        ("r1", "on", "<|im_start|><think>\n", True),
        ("r1", "off", "<|im_start|><think>\n\n</think>\n\n", False),
        ("harmony", None, "<|start|>assistant", None),
        ("harmony", "on", "<|start|>assistant", None),
        ("harmony", "off", f"<|start|>assistant{FINAL}", False),
        ("none", "off", "<|im_start|>assistant\n", None),
    ],
)
def test_thinking_is_switched_in_the_prompt(
    renderers: dict[str, Renderer], family: str, thinking: Any, end: str, in_thought: bool | None
) -> None:
    renderer, settings = renderers[family], config(thinking)
    prompt = prompt_of(renderer, settings)
    assert prompt.text.endswith(f"{SAMPLE.question}{'<|im_end|>' * (family in ('qwen3', 'none'))}"
                                f"{'<|end|>' * (family == 'harmony')}{chr(10) * (family in ('qwen3', 'none'))}{end}")  # fmt: skip
    assert prompt.in_thought is in_thought
    assert prompt.token_ids == renderer.encode(prompt.text)[0]
    # What was rendered is located again from its record alone.
    state = made(renderer, settings, "Answer: 5").state
    assert state is not None
    assert stored_spans(renderer, state)[0] == renderer.render(
        state.request["messages"], prompt.arguments, None, message_spans(settings, state.request["messages"], SAMPLE.question).values(), suffix=prompt.suffix
    ).spans  # fmt: skip
    assert describe_prompt(settings, renderer)["frame"].endswith(end)


def test_a_thought_is_opened_where_the_template_does_not(tmp_path: Path) -> None:
    template = R1.replace("<think>", "")
    renderer = Renderer.load(byte_tokenizer.write(tmp_path, template, added=("<think>", "</think>")))
    ends = {None: "<|im_start|>\n", "on": "<|im_start|>\n<think>\n", "off": "<|im_start|>\n<think>\n\n</think>\n\n"}
    for thinking, end in ends.items():
        prompt = prompt_of(renderer, config(thinking))
        assert prompt.text.endswith(end)
        assert prompt.in_thought is {None: None, "on": True, "off": False}[thinking]


def test_a_marker_in_the_question_opens_no_thought(renderers: dict[str, Renderer]) -> None:
    for family, marker in (("qwen3", "<think>"), ("r1", "</think>"), ("harmony", HEADER)):
        plain = prompt_of(renderers[family], config())
        marked = prompt_of(renderers[family], config(), f"What does {marker} mean?")
        assert marked.in_thought is plain.in_thought, family
    trajectory = made(
        renderers["qwen3"], config("on"), "Answer: 5", prompt=prompt_of(renderers["qwen3"], config("on"), "<think> 2?")
    )
    assert thought_of(renderers["qwen3"], trajectory) is None
    assert trajectory.completion == "Answer: 5"


# Family, completion, thought, what follows it, and whether the thought was ended.
COMPLETIONS = {
    "thought": ("qwen3", "<think>\nIt is 4? No.\n</think>\n\nAnswer: 5<|im_end|>", "\nIt is 4? No.\n", "\n\nAnswer: 5", True),
    "opened": ("r1", "It is 4? No.\n</think>\n\nAnswer: 5", "It is 4? No.\n", "\n\nAnswer: 5", True),
    "no end": ("qwen3", "<think>\nAnswer: 5", "\nAnswer: 5", "", False),
    "opened, no end": ("r1", "Answer: 5", "Answer: 5", "", False),
    "empty": ("qwen3", "<think>\n\n</think>\n\nAnswer: 5", None, "\n\nAnswer: 5", True),
    "opened, empty": ("r1", "</think>Answer: 5", None, "Answer: 5", True),
    "two": ("qwen3", "<think>a</think>Answer: 4<think>b</think>Answer: 5", "a</think>Answer: 4<think>b", "Answer: 5", True),
    "two, no end": ("qwen3", "<think>a</think>Answer: 5<think>b", "a</think>Answer: 5<think>b", "", False),
    "end alone": ("qwen3", "It is 4.</think>Answer: 5", "It is 4.", "Answer: 5", True),
    "channels": ("harmony", f"{HEADER}It is 4?{NEXT}{FINAL}Answer: 5<|return|>", "It is 4?", "Answer: 5", True),
    "two channels": (
        "harmony", f"{HEADER}a{NEXT}{HEADER}b{NEXT}{FINAL}Answer: 5", f"a{NEXT}{HEADER}b", "Answer: 5", True
    ),
    "final channel": ("harmony", f"{FINAL}Answer: 5<|return|>", None, "Answer: 5", True),
    "channel, no end": ("harmony", f"{HEADER}Answer: 5", "Answer: 5", "", False),
    "wide": ("qwen3", "<think>é🙂</think>é Answer: 5", "é🙂", "é Answer: 5", True),
}  # fmt: skip


@pytest.mark.parametrize("thinking", [None, "on"])
@pytest.mark.parametrize("name", COMPLETIONS)
def test_only_what_follows_the_thought_is_graded(
    tmp_path: Path, renderers: dict[str, Renderer], name: str, thinking: Any
) -> None:
    family, text, thought, answer, ended = COMPLETIONS[name]
    renderer, settings = renderers[family], config(thinking)
    trajectory = made(renderer, settings, text, "stop" if ended else "length")
    assert thought_of(renderer, trajectory) == thought
    assert trajectory.completion == answer
    assert trajectory.is_cut_off_in_thought is not ended
    assert trajectory.outcome is not None
    assert trajectory.outcome.metrics.correctness == float(ended)
    assert trajectory.outcome.extracted_answer == ("5" if ended else None)
    shown = trajectory.messages[-1]
    if thinking is None:  # as version 0.2 wrote it
        assert shown == {"role": "assistant", "content": renderer.plain(renderer.encode(text)[0])}
    else:
        assert shown["content"] == answer
        assert (shown["reasoning_content"].strip() or None) == (
            None if thought is None else renderer.plain(renderer.encode(thought)[0]).strip()
        )
    # Written and read again it is the same, and whole.
    folder = Layout(tmp_path).pair("control", "sum_0001")
    trajectory.write(folder)
    assert Trajectory.read(folder).completion == answer
    assert check_trajectory(folder, "control", "sum_0001").problems == []
    row = load_trajectories(tmp_path).iloc[0]
    assert (row["completion"], bool(row["correct"]), bool(row["thought_cut_off"])) == (answer, ended, not ended)
    assert row["thought_tokens"] == (0 if thought is None else len(renderer.encode(thought)[0]))


def test_a_model_that_does_not_think_has_no_thought(renderers: dict[str, Renderer]) -> None:
    for family, text in (("none", "<think>4</think>Answer: 5"), ("qwen3", "Answer: 5"), ("harmony", "Answer: 5")):
        trajectory = made(renderers[family], config(), text)
        assert trajectory.state is not None
        assert trajectory.state.thought is None
        assert trajectory.completion == text
        assert trajectory.is_cut_off_in_thought is None


def test_a_record_of_version_0_2_is_read_by_its_text(tmp_path: Path, renderers: dict[str, Renderer]) -> None:
    trajectory = made(renderers["qwen3"], config(), "<think>Answer: 5", "length")
    trajectory.write(tmp_path / "control/sum_0001")
    path = tmp_path / "control/sum_0001/agent_state.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("thought", "hashes")}
    path.write_text(json.dumps(values))
    row = load_trajectories(tmp_path).iloc[0]
    assert row["completion"] == "<think>Answer: 5"
    assert pd.isna(row["thought_tokens"])
    assert row["thought_cut_off"]


def test_what_a_stop_string_cut_off_is_not_in_the_answer(renderers: dict[str, Renderer]) -> None:
    trajectory = made(
        renderers["qwen3"], config("on"), "<think>4?</think>Answer: 5 STOP", text="<think>4?</think>Answer: 5 "
    )
    assert trajectory.completion == "Answer: 5 "
    other = made(
        renderers["harmony"],
        config("on"),
        f"{HEADER}4?{NEXT}{FINAL}Answer: 5",
        text=f"{HEADER}4?{NEXT}{FINAL}Answer: 5",
    )
    assert other.completion == "Answer: 5"  # a server that returns special tokens


@pytest.mark.parametrize(("prefill", "in_thought"), [("The answer", False), ("<think>\nWell", True)])
def test_a_prefill_is_part_of_what_it_begins(renderers: dict[str, Renderer], prefill: str, in_thought: bool) -> None:
    renderer, settings = renderers["r1"], config("on" if in_thought else None)
    messages = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": prefill}]
    request = chat_request(settings, "m", "control", SAMPLE) | {"messages": messages}
    prompt = rendered_prompt(settings, renderer, request)
    assert (prompt.in_thought, prompt.suffix) == (in_thought or None, "")
    ids = list(renderer.encode(", 4?</think>Answer: 5" if in_thought else " is 5")[0])
    counts = {"prompt_tokens": 1, "completion_tokens": len(ids), "total_tokens": 0}
    answered = {"text": renderer.plain(ids), "token_ids": ids, "finish_reason": "stop"}
    response = {"choices": [answered], "usage": counts}
    found = completed(settings, "control", SAMPLE, request, prompt, response, DELIVERY, renderer=renderer)
    assert found.state is not None
    if in_thought:
        assert found.messages[-1]["reasoning_content"] == "\nWell, 4?"
        assert (found.completion, found.state.prefill) == ("Answer: 5", 0)
        assert thought_of(renderer, found) == ", 4?"
    else:
        assert (found.completion, found.state.prefill) == ("The answer is 5", len(prefill))


def test_positions_of_the_thought() -> None:
    spans = TokenSpans(response=(10, 20), thought=(12, 15))
    mean, last = resolve(["thinking_mean", "thinking_last"], spans)
    assert (mean.span, mean.empty, last.span, last.empty) == ((12, 15), False, (14, 15), False)
    for position in resolve(["thinking_mean", "thinking_last"], TokenSpans(response=(10, 20))):
        assert (position.span, position.empty) == ((9, 10), True)
    assert "thought" not in TokenSpans(response=(10, 20)).values()
    assert TokenSpans.model_validate(spans.values()) == spans


def test_cut_off_thoughts_are_counted_in_the_report() -> None:
    table = pd.DataFrame({"variant": ["calm", "calm", "joy"], "thought_cut_off": [True, None, True], "failure": None})
    found = notes(thought_limits(table))
    assert [statement.about for statement in found] == ["data:thoughts"]
    assert found[0].text.startswith("2 of 3 completions were cut off at max_tokens within a thought")
    assert "calm (1 answer), joy (1 answer)" in found[0].text
    assert notes(thought_limits(table.assign(thought_cut_off=False))) == []
    assert notes(thought_limits(table.drop(columns="thought_cut_off"))) == []


@pytest.mark.parametrize(
    ("family", "sections", "problem"),
    [
        ("none", {"thinking": "on"}, "generation.thinking = on: the chat template of"),
        ("none", {"thinking": {"budget": 5}}, "generation.thinking = {budget: 5}: the chat template of"),
        ("none", {"thinking": "off"}, ""),
        ("none", {"positions": ["thinking_mean"]}, "capture.positions = 'thinking_mean': is a position of the thought"),
        ("qwen3", {"positions": ["thinking_last"], "thinking": "off"}, "capture.positions = 'thinking_last'"),
        ("qwen3", {"positions": ["thinking_last"]}, ""),
        (
            "qwen3",
            {"positions": ["thinking_last"], "chat_template": {"enable_thinking": False}},
            "ends after an empty thought, so that no thought follows; set generation.thinking: on",
        ),
        ("r1", {"positions": ["thinking_mean"], "thinking": "on"}, ""),
        ("harmony", {"positions": ["thinking_mean"], "thinking": {"budget": 50}}, ""),
        ("r1", {"thinking": "on", "transform": True}, "begins the answer, so that no thought follows"),
        ("qwen3", {"thinking": "on", "transform": True}, "begins the answer, so that no thought follows"),
        ("r1", {"transform": True}, ""),
        ("qwen3", {"thinking": "on", "prefill": "So"}, "begins the answer, so that no thought follows"),
        ("qwen3", {"prefill": "So"}, ""),
    ],
)  # fmt: skip
def test_a_plan_is_refused_that_waits_for_a_thought_in_vain(
    renderers: dict[str, Renderer], family: str, sections: dict[str, Any], problem: str
) -> None:
    begun = {"begun": {"transform": f"{__name__}:begin"}} if sections.pop("transform", False) else {}
    positions, prefill = sections.pop("positions", None), sections.pop("prefill", None)
    settings = config(
        sections.pop("thinking", None),
        prompt={"prefill": prefill},
        generation=sections,
        capture={} if positions is None else {"positions": positions},
        variants={"control": {}, **begun},
    )
    found = check_prompts(settings, renderers[family])
    assert len(found) == bool(problem), found
    assert problem in "".join(found)


def begin(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """A transform that begins the answer."""
    return [*messages, {"role": "assistant", "content": "So:"}]


@pytest.mark.parametrize(
    ("family", "thinking", "generation", "warned"),
    [
        ("qwen3", None, {}, True),
        ("qwen3", "on", {"max_tokens": 1023}, True),
        ("qwen3", "on", {"max_tokens": 1024}, False),
        ("qwen3", "off", {}, False),
        ("qwen3", None, {"chat_template": {"enable_thinking": False}}, False),
        ("r1", {"budget": 100}, {}, True),
        ("harmony", None, {}, True),
        ("none", None, {}, False),
    ],
)
def test_a_dry_run_warns_of_short_completions(
    renderers: dict[str, Renderer], family: str, thinking: Any, generation: dict[str, Any], warned: bool
) -> None:
    found = thinking_warnings(config(thinking, generation=generation), renderers[family])
    assert len(found) == warned
    assert not warned or "a completion that ends within one has no answer" in found[0]


def test_the_configuration_of_thinking() -> None:
    assert config("off").generation.thinking == "off"
    assert config(False).generation.thinking == "off"  # YAML reads `off` so
    assert config(True).generation.thinking == "on"
    assert config({"budget": 9}).generation.thinking_budget == 9
    assert config({"budget": 9}).generation.thinking_mode == "on"
    for wrong, word in [
        ({"thinking": "maybe"}, "thinking"),
        ({"thinking": {"budget": 0}}, "must be off, on, or {budget: N}"),
        ({"thinking": {"budget": 256}}, "leaves no room for an answer"),
        ({"thinking": "on", "chat_template": {"enable_thinking": True}}, "chat_template.enable_thinking already"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(word)):
            parse_config({"generation": wrong})


def test_results_without_the_key_stay_up_to_date() -> None:
    known = [Triggers.of(config(thinking)) for thinking in (None, "off", "on", {"budget": 5})]
    assert len({triggers.answers for triggers in known}) == 4
    assert "thinking" not in config().generation.content()
    assert "thinking" not in config().generation.described()


def test_the_record_of_a_thought_names_who_ended_it(renderers: dict[str, Renderer]) -> None:
    settings = config({"budget": 2})
    for said, thought in (("4?\n</think>\n\nAnswer: 5", "4?"), ("</think>Answer: 5", None)):
        choice: dict[str, Any] = {BUDGET_REACHED: thought is not None}
        found = made(renderers["r1"], settings, said, **choice)
        assert found.state is not None
        assert found.state.thought is not None
        assert found.state.thought.ended == ("model" if thought is None else "budget")
        assert thought_of(renderers["r1"], found) == thought  # without what closed it
