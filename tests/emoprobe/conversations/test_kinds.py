"""Conversations of several turns: the config, digests, lengths, checks and positions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.kinds import longest_conversation
from emoprobe.conversations.lengths import needed_length
from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.requests import conversation_spans
from emoprobe.conversations.stored_spans import stored_spans
from emoprobe.functions import load_function
from emoprobe.models.positions import PositionError, resolve
from emoprobe.results.activation_folder import TokenSpans
from emoprobe.results.trajectory import AgentState, EarlierTurn, Sample
from emoprobe.workflow.checks import check_config
from emoprobe.workflow.prompt_checks import check_prompts
from emoprobe.workflow.tool_checks import check_tools
from emoprobe.workflow.triggers import Triggers
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML, TOOL_CHATML

AGAIN = {"kind": "scripted", "turns": [{"text": "Try again."}]}
AGENT = {"kind": "agent", "tools": ["tests.tools:calculator"], "tool_parser": "hermes", "max_turns": 4}
VARIANTS: dict[str, Any] = {
    "control": {},
    "joy": {"text": "What a day!", "turn": 2},
    "gloom": {"text": "What a mess!", "turn": 2},
}


def config(conversation: dict[str, Any] | None = None, **sections: Any) -> Config:
    return parse_config({"conversation": AGAIN if conversation is None else conversation, **sections})


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"conversation": {"turns": [{"text": "a"}]}}, "set kind: scripted"),
        ({"conversation": {"kind": "scripted"}}, "needs turns"),
        (
            {"conversation": {"kind": "agents"}},
            "conversation.kind.*must be single, scripted, agent, or name a function",
        ),
        ({"conversation": {"kind": "agent"}}, "needs tools"),
        ({"conversation": AGENT | {"tools": ["a:f", "b:c.f"]}}, "different names"),
        ({"conversation": AGENT | {"tools": ["f"]}}, "must name a function"),
        ({"conversation": AGENT | {"tool_parser": None}}, "conversation.tool_parser: vLLM needs"),
        ({"conversation": AGENT | {"tool_choice": "look"}}, "tool_choice look is none of auto, required, calculator"),
        ({"conversation": AGAIN | {"tool_choice": "required"}}, "tool_choice, which is for kind: agent"),
        ({"conversation": AGENT | AGAIN | {"kind": "agent"}}, "has turns"),
        ({"conversation": AGAIN | {"tool_timeout": 1.0}}, "tool_timeout, which is for kind: agent"),
        ({"conversation": AGAIN | {"max_turns": 3}}, "max_turns, which is for kind: agent and for functions"),
        ({"conversation": AGENT, "generation": {"backend": "nnsight"}}, "only vLLM generates with tools"),
        (
            {"conversation": AGENT, "generation": {"thinking": "off"}},
            "generation.thinking with conversation.kind agent",
        ),
        ({"conversation": AGENT, "capture": {"positions": ["turn5.response_mean"]}}, "has 4 answers at most"),
        ({"conversation": AGENT, "variants": {"control": {}, "a": {"text": "a", "turn": 2}}}, "has 1 turn of the user"),
        (
            {"conversation": {"kind": "a:b"}, "variants": {"control": {}, "a": {"text": "a", "turn": "last"}}},
            "known only afterwards; name a number",
        ),
        ({"conversation": {"kind": "scripted", "turns": [{"text": " "}]}}, "more than white space"),
        ({"conversation": {"kind": "scripted", "turns": [{"text": "a", "when": "sometimes"}]}}, "always, after_wrong"),
        ({"variants": {"control": {}, "a": {"text": "a", "turn": 3}}}, "has 2 turns of the user"),
        ({"variants": {"control": {}, "a": {"text": "a", "turn": 0}}}, "turn"),
        ({"variants": {"control": {}, "a": {"turn": 2}}}, "there is none; add a text"),
        ({"variants": {"control": {}, "a": {"transform": "a:b", "turn": 2}}}, "there is none; add a text"),
        (
            {"variants": {"control": {}, "a": {"text": "a", "turn": "last", "placement": "system_prefix"}}},
            "the system message is of no turn",
        ),
        ({"capture": {"positions": ["turn3.response_mean"]}}, "has 2 turns of the user"),
        ({"capture": {"positions": ["turn2.prefix_mean"]}}, "turnN. with one of"),
        ({"conversation": {}, "capture": {"positions": ["turn1.response_mean"]}}, "single conversation has 1 turn"),
        ({"steering": {"enabled": True}}, "only single conversations can be steered"),
    ],
)
def test_a_config_that_no_conversation_follows_from_is_refused(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config({"conversation": AGAIN, **sections})


def test_further_turns_make_answers_again_and_a_single_conversation_has_the_old_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    rule = tmp_path / "my_rule.py"
    rule.write_text("def holds(messages): return True\n")
    joy = {"control": {}, "joy": {"text": "Ah!"}}
    plain, single = Triggers.of(parse_config({"variants": joy})), Triggers.of(config({"kind": "single"}, variants=joy))
    assert plain == single
    assert "conversation" not in plain.answers
    turn = {"text": "Try again.", "when": "my_rule:holds"}
    changed = [
        Triggers.of(config(variants=joy)),
        Triggers.of(config({"kind": "scripted", "turns": [{"text": "Again."}]}, variants=joy)),
        Triggers.of(config({"kind": "scripted", "turns": [turn]}, variants=joy)),
    ]
    rule.write_text("def holds(messages): return False\n")
    changed.append(Triggers.of(config({"kind": "scripted", "turns": [turn]}, variants=joy)))
    assert len({plain.answers, *(each.answers for each in changed)}) == 5

    def placed(turn: str | int) -> Triggers:
        return Triggers.of(config(variants={"control": {}, "joy": {"text": "Ah!", "turn": turn}}))

    assert placed("first").trajectories == placed(1).trajectories == changed[0].trajectories
    assert placed("last").trajectories == placed(2).trajectories
    assert len({placed(turn).trajectories["joy"] for turn in ("first", "last", "all")}) == 3
    assert placed("last").trajectories["control"] == changed[0].trajectories["control"]


@pytest.mark.parametrize(
    "change",
    [
        {"max_turns": 5}, {"tools": ["my_tools:f", "my_tools:g"]}, {"tool_parser": "llama3_json"}, {"tool_timeout": 1.0},
        {"tool_memory": 64}, {"tool_output": 500}, {"tool_choice": "required"}, {"tool_choice": "f"},
    ],
    ids=str,
)  # fmt: skip
def test_every_key_of_an_agent_makes_its_answers_again(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_tools.py"
    module.write_text("def f(): pass\n")
    before = AGENT | {"tools": ["my_tools:f"]}
    old, new = Triggers.of(config(before)), Triggers.of(config(before | change))
    assert old.answers != new.answers
    assert (old.model, old.data, old.capture, old.graders) == (new.model, new.data, new.capture, new.graders)
    module.write_text("def f(): return 1\n")
    assert Triggers.of(config(before)).answers != old.answers


def test_the_keys_of_an_agent_are_in_no_digest_of_a_script() -> None:
    assert config().conversation.content().keys() == {"kind", "turns"}


def test_the_source_of_a_kind_makes_its_answers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_kind.py"
    found = []
    for source in ("def f(messages): return None\n", "def f(messages): return 'Sure?'\n"):
        module.write_text(source)
        found.append(Triggers.of(config({"kind": "my_kind:f"})).answers)
    found.append(Triggers.of(config({"kind": "my_kind:f", "max_turns": 3})).answers)
    assert len(set(found)) == 3


def test_a_text_goes_where_its_variant_says(tmp_path: Path) -> None:
    def user(turn: str | int, placement: str = "user_prefix") -> list[bool]:
        settings = config(variants={"control": {}, "joy": {"text": "Ah!", "turn": turn, "placement": placement}})
        messages = longest_conversation(settings, "joy", "1?", 0).messages
        spans = conversation_spans(settings, "joy", "1?", 0, messages, len(messages) - 2)
        assert spans.prefix is not None
        number, start, end = spans.prefix
        assert messages[number]["content"][start:end] == "Ah!"
        return ["Ah!" in message["content"] for message in messages if message["role"] == "user"]

    assert [user(turn) for turn in ("first", "last", "all")] == [[True, False], [False, True], [True, True]]
    assert user(2, "user_suffix") == [False, True]


def test_earlier_answers_keep_their_beginnings() -> None:
    turns = [{"text": "Sure?", "prefill": "Yes,"}, {"text": "Really?"}]
    settings = config({"kind": "scripted", "turns": turns}, prompt={"prefill": "So"})
    messages = longest_conversation(settings, "control", "1?", 0).messages
    assert [message["content"] for message in messages if message["role"] == "assistant"] == ["So?", "Yes,?"]


def test_all_turns_have_to_fit(tmp_path: Path) -> None:
    renderer = Renderer.load(byte_tokenizer.write(tmp_path))
    sample = Sample(sample_id="x_0001", index=0, question="1?", answer="1", source={})
    turns = [{"text": "Try again.", "when": "after_wrong"}] * 3
    generation = {"max_tokens": 2000}

    def length(conversation: dict[str, Any]) -> int:
        return needed_length(config(conversation, generation=generation), renderer, [sample], None)

    assert length({"kind": "single"}) == 4096
    assert length({"kind": "scripted", "turns": turns[:1]}) == 8192
    assert length({"kind": "scripted", "turns": turns}) == 16384


@pytest.mark.parametrize("conversation", [AGENT, {"kind": "a:b"}])
def test_an_open_conversation_may_use_the_model_s_whole_context(tmp_path: Path, conversation: dict[str, Any]) -> None:
    renderer = Renderer.load(byte_tokenizer.write(tmp_path))
    sample = Sample(sample_id="x_0001", index=0, question="1?", answer="1", source={})
    assert needed_length(config(conversation), renderer, [sample], 32768) == 32768


def test_a_template_that_does_not_show_tools_is_named_before_the_run(tmp_path: Path) -> None:
    folder = byte_tokenizer.write(tmp_path)
    settings = config(AGENT, model={"source": str(folder)})

    def problems(template: str) -> list[str]:
        (folder / "chat_template.jinja").write_text(template)
        return check_tools(settings, Renderer.load(folder))

    assert problems(TOOL_CHATML) == []
    (line,) = problems(CHATML)
    assert f"conversation.tools: the chat template of {folder} does not show tools to the model" in line
    (line,) = problems(TOOL_CHATML.replace("message['content']", "('' if message.role == 'tool' else message.content)"))
    assert "does not show results of tools" in line
    (line,) = problems(f"{{% if tools %}}{{{{ raise_exception('no tools') }}}}{{% endif %}}{CHATML}")
    assert "no tools; choose a model that was trained to call tools" in line
    assert check_tools(config(), Renderer.load(folder)) == []
    (line,) = check_tools(config(AGENT | {"tools": ["tests.tools:undescribed"]}), Renderer.load(folder))
    assert line.startswith("conversation.tools.0: tests.tools:undescribed cannot be described")


def test_prompts_of_every_turn_are_checked(tmp_path: Path) -> None:
    folder = byte_tokenizer.write(tmp_path)
    assert check_prompts(config(variants=VARIANTS), Renderer.load(folder)) == []
    one = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(one + CHATML)
    found = check_prompts(config(variants=VARIANTS, prompt={"system": None}), Renderer.load(folder))
    assert len(found) == 3
    assert "roles: user, assistant, user" in found[0]
    twins = VARIANTS | {"gloom": VARIANTS["joy"]}
    (folder / "chat_template.jinja").write_text(CHATML)
    (line,) = check_prompts(config(variants=twins), Renderer.load(folder))
    assert "variants.gloom: its prompts are those of joy" in line


def test_a_rule_that_cannot_be_asked_is_named_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    turns = [{"text": "a"}, {"text": "b", "when": "no_such_rules:f"}]
    for conversation, key in (
        ({"kind": "no_such_rules:f"}, "kind"),
        (AGENT | {"tools": ["no_such_rules:f"]}, "tools.0"),
    ):
        (line,) = check_config(config(conversation), None, tmp_path)
        assert line.startswith(f"conversation.{key}: no_such_rules:f cannot be imported")
    (line,) = check_config(config({"kind": "scripted", "turns": turns}), None, tmp_path)
    assert line.startswith("conversation.turns.1.when: no_such_rules:f cannot be imported")
    load_function.cache_clear()
    assert "no_such_rules" not in sys.modules


def test_positions_of_a_turn_are_those_of_its_answer() -> None:
    spans = TokenSpans(response=(20, 25), turns={1: (5, 9), 2: None, 3: (20, 25)})
    names: list[int | str] = ["turn1.last_prompt", "turn1.response_first", "turn1.response_mean", "turn1.response_last"]
    assert [position.span for position in resolve(names, spans)] == [(4, 5), (5, 6), (5, 9), (8, 9)]
    skipped, last, same = resolve(["turn2.response_mean", "turn3.response_mean", "response_mean"], spans)
    assert (skipped.span, skipped.empty, last.empty) == ((19, 20), True, False)
    assert last.span == same.span == (20, 25)
    assert TokenSpans.model_validate(spans.values()) == spans
    with pytest.raises(PositionError, match="where the turns are is not known"):
        resolve(["turn1.response_mean"], TokenSpans(response=(20, 25)))


def test_an_earlier_answer_has_the_token_that_ended_it_and_not_the_thought_before_it(tmp_path: Path) -> None:
    renderer = Renderer.load(byte_tokenizer.write(tmp_path))
    asked = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "2?"},
    ]
    prompt = renderer.render(asked)
    end = renderer.encode("<|im_end|>")[0]
    said = renderer.encode("One.")[0]
    state = AgentState(
        request={"messages": asked}, prompt_token_ids=prompt.token_ids, completion_token_ids=[1, 2], turn=2,
        earlier_turns=[EarlierTurn(number=1, answer=1, finish_reason="stop", completion_token_ids=[*said, *end])],
    )  # fmt: skip
    turns = stored_spans(renderer, state)[1]
    assert turns[1] is not None
    assert prompt.token_ids[slice(*turns[1])] == [*said, *end]
    assert turns[2] == (len(prompt.token_ids), len(prompt.token_ids) + 2)
    cut = state.model_copy(
        update={"earlier_turns": [EarlierTurn(number=1, answer=1, finish_reason="length", completion_token_ids=said)]}
    )
    assert stored_spans(renderer, cut)[1][1] == (turns[1][0], turns[1][1] - 1)


def test_an_answer_that_calls_tools_is_where_its_tokens_are_in_the_last_prompt(tmp_path: Path) -> None:
    renderer = Renderer.load(byte_tokenizer.write(tmp_path, TOOL_CHATML))
    call = {"id": "call01001", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    asked: list[dict[str, Any]] = [{"role": "user", "content": "1?"}]
    again: list[dict[str, Any]] = [
        *asked,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
    ]
    first, last = renderer.render(asked).token_ids, renderer.render(again).token_ids

    def turn(said: str) -> tuple[int, int] | None:
        ids = renderer.encode(said)[0]
        earlier = EarlierTurn(
            number=1, answer=1, finish_reason="tool_calls", prompt_token_ids=first, completion_token_ids=ids
        )
        state = AgentState(
            request={"messages": again},
            prompt_token_ids=last,
            completion_token_ids=[1],
            turn=2,
            earlier_turns=[earlier],
        )
        return stored_spans(renderer, state)[1][1]

    said = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>'
    assert turn(said) == (len(first), len(first) + len(renderer.encode(said)[0]))
    assert turn(said.replace('"a": 1', '"a":1')) is None
