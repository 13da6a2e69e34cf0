"""Requests to a judge, their blindness, and replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emoprobe.analysis.outcomes import outcomes_of
from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study, parse_config
from emoprobe.config.judge_server import judge_server
from emoprobe.config.science.judge import JudgeGrader, ready_rubrics
from emoprobe.conversations.judging import (
    BlindError,
    ReplyError,
    agreement_of_orders,
    answers_of,
    check_blind,
    judge_request,
    preference,
    quotes_variant,
    read_reply,
)
from emoprobe.conversations.variants import opening_messages
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import AgentState, EarlierTurn, Sample, Trajectory
from emoprobe.workflow.targets import Targets, budget, turns
from emoprobe.workflow.triggers import Triggers
from emoprobe.workflow.verdict_checks import lone_judges
from tests.judges import judge

TONE = "You have failed me again!"
VARIANTS = {"control": {}, "anger": {"text": TONE}, "shout": {"transform": "shouting:shout"}}
SAMPLE = Sample(sample_id="s_0001", index=0, question="How many legs\nhas a spider?", answer="8", source={})


def shout(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A transform without texts."""
    return [message | {"content": message["content"].upper()} for message in messages]


@pytest.fixture(autouse=True)
def _shouting(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("shouting")
    vars(module)["shout"] = shout
    monkeypatch.setitem(sys.modules, "shouting", module)


def config(**keys: Any) -> Config:
    return parse_config({"experiment": {"name": "one"}, "variants": VARIANTS, "graders": [judge(**keys)]})


def checked(variant: str, answers: list[str], sample: Sample = SAMPLE, **keys: Any) -> dict[str, Any]:
    """The request for some answers of a variant, if it is blind."""
    made = config(**keys)
    (settings,) = made.judges
    request = judge_request(settings, made.experiment.seed, sample.question, answers)
    opening = opening_messages(made, variant, sample.question, sample.index)
    check_blind(made, settings, opening, sample, answers, request)
    return request


def test_a_request_holds_rubric_question_and_answers_and_no_variant() -> None:
    requests = [checked(variant, ["Eight.", "Still eight."]) for variant in VARIANTS]
    assert requests[0] == requests[1] == requests[2]
    system, user = (message["content"] for message in requests[0]["messages"])
    assert "Is the answer polite?" in system
    assert user == (
        "<question>\nHow many legs\nhas a spider?\n</question>\n\n<answer 1>\nEight.\n</answer>\n\n"
        "<answer 2>\nStill eight.\n</answer>"
    )
    assert requests[0].keys() == {"model", "messages", "max_tokens", "temperature", "seed"}
    extended = checked("anger", ["Eight."], api_request={"seed": None, "reasoning_effort": "low"})
    assert extended.keys() == {"model", "messages", "max_tokens", "temperature", "reasoning_effort"}


def test_a_comparison_is_asked_in_both_orders_and_shows_no_variant() -> None:
    made = config(compare_with="control", rubric="Which is kinder?")
    (settings,) = made.judges
    answers = ["Eight.", "Still eight."], ["Six."]
    opening = [
        message
        for variant in ("anger", "control")
        for message in opening_messages(made, variant, SAMPLE.question, SAMPLE.index)
    ]
    requests = [judge_request(settings, 1, SAMPLE.question, *order) for order in (answers, answers[::-1])]
    for request in requests:
        check_blind(made, settings, opening, SAMPLE, [*answers[0], *answers[1]], request)
    (system, first), (other_system, second) = ([one["content"] for one in made["messages"]] for made in requests)
    assert system == other_system
    assert "Which is kinder?" in system
    assert 'one of "A", "B", "tie"' in system
    question = f"<question>\n{SAMPLE.question}\n</question>"
    assert first == (
        f"{question}\n\n<answer A 1>\nEight.\n</answer>\n\n<answer A 2>\nStill eight.\n</answer>\n\n"
        "<answer B>\nSix.\n</answer>"
    )
    assert second.startswith(f"{question}\n\n<answer A>\nSix.\n</answer>\n\n<answer B 1>\nEight.")
    shown = made.model_copy(update={"graders": [settings.model_copy(update={"rubric": f"After {TONE}?"})]})
    with pytest.raises(BlindError, match=r"variants\.anger"):
        check_blind(
            shown, shown.judges[0], opening, SAMPLE, answers[1], judge_request(shown.judges[0], 1, "", *answers)
        )


@pytest.mark.parametrize(
    ("replies", "value", "orders"),
    [
        (("A", "B"), 1.0, "same"),
        (("B", "A"), 0.0, "same"),
        (("tie", "tie"), 0.5, "same"),
        (("A", "A"), 0.5, "first"),
        (("B", "B"), 0.5, "second"),
        (("A", "tie"), 0.75, "tie"),
        (("tie", "A"), 0.25, "tie"),
    ],
)
def test_the_value_of_a_pair(replies: tuple[str, str], value: float, orders: str) -> None:
    assert preference(replies) == value
    assert agreement_of_orders(replies) == orders


@pytest.mark.parametrize(
    ("variant", "sample", "keys", "words"),
    [
        ("anger", SAMPLE, {"rubric": f"Is it calm after {TONE.lower()}"}, "variants.anger"),
        ("control", SAMPLE, {"rubric": f"Is it calm after {TONE}"}, "variants.anger"),
        ("anger", SAMPLE.model_copy(update={"question": f"Who said “{TONE}”?"}), {}, "variants.anger"),
        ("shout", SAMPLE, {"rubric": "As in HOW MANY LEGS HAS A SPIDER? and so on"}, None),
        ("anger", SAMPLE, {"api_request": {"metadata": {"arm": "anger"}}}, "variants.anger"),
    ],
)
def test_a_request_that_shows_a_variant_is_refused(
    variant: str, sample: Sample, keys: dict[str, Any], words: str | None
) -> None:
    if words is None:  # the prompt in capitals is the question in capitals, with what the template adds
        checked(variant, ["Eight."], sample, **keys)
        return
    with pytest.raises(BlindError, match=words):
        checked(variant, ["Eight."], sample, **keys)


def test_a_prompt_that_a_variant_changed_is_refused() -> None:
    opening = shout(opening_messages(config(), "control", SAMPLE.question, 0))
    with pytest.raises(BlindError, match="a message of the prompt"):
        checked("shout", ["Eight."], rubric=f"As in {opening[-1]['content']}")


def test_an_answer_may_quote_its_tone_and_is_counted() -> None:
    answer = "You said: you have  failed me\nagain! Eight."
    checked("anger", [answer])
    assert quotes_variant(config(), "anger", [answer])
    assert not quotes_variant(config(), "anger", ["Eight."])
    assert not quotes_variant(config(), "control", [answer])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (15, 0), (0, 15), (15, 15)])
def test_what_the_model_says_is_judged_without_thoughts_and_given_beginnings(first: int, last: int) -> None:
    asked = [{"role": "user", "content": text} for text in ("1 + 1?", "Legs?", "Again!")]
    sorry = "I am so sorry. "
    answers = [f"{sorry[:first]}<think>Insects.</think>Six.", f"{sorry[:last]}Eight."]
    messages = [asked[0], {"role": "assistant", "content": "2"}]  # an example
    for question, answer in zip(asked[1:], answers, strict=True):
        messages += [question, {"role": "assistant", "content": answer}]
    earlier = [EarlierTurn(number=1, answer=3, prefill=first or None)]
    state = AgentState(prefill=last or None, turn=2, earlier_turns=earlier)
    assert answers_of(Trajectory(messages, state)) == ["Six.", "Eight."]
    assert answers_of(Trajectory(messages[2:4], AgentState(prefill=first or None))) == ["Six."]


def test_a_beginning_that_the_instruction_happens_to_hold_refuses_nothing() -> None:
    opening = [{"role": "user", "content": "Legs?"}, {"role": "assistant", "content": "The answer"}]
    settings, sample = config().judges[0], Sample(sample_id="q_1", index=0, question="Legs?", answer="8", source={})
    request = judge_request(settings, 1, sample.question, ["Eight."])
    check_blind(config(), settings, opening, sample, ["Eight."], request)


def test_a_judge_cannot_be_asked_without_a_limit() -> None:
    unbounded: list[dict[str, Any]] = [
        {"max_tokens": None}, {"max_completion_tokens": "9"}, {"max_tokens": 0}, {"tools": []},
    ]  # fmt: skip
    for fields in unbounded:
        with pytest.raises(ConfigError, match=r"max_tokens|may not hold"):
            config(api_request=fields)
    assert config(api_request={"max_tokens": None, "max_completion_tokens": 9}).judges


BINARY = config().judges[0]
NUMBER = config(value="number", range=[0.0, 10.0]).judges[0]
CATEGORY = config(value="category", categories=["warm", "cold"]).judges[0]
PAIR = config(compare_with="control").judges[0]
READ: list[tuple[JudgeGrader, str, Any]] = [
    (BINARY, '{"reason": "kind", "value": true}', True),
    (BINARY, ' {"value": false}\n', False),
    (BINARY, '```json\n{"value": true}\n```', True),
    (BINARY, '<think>{"value": false}</think>{"value": true}', True),
    (BINARY, "", None),
    (BINARY, "true", None),
    (BINARY, "The answer is polite.", None),
    (BINARY, '{"value": "true"}', None),
    (BINARY, '{"value": 1}', None),
    (BINARY, '{"value": null}', None),
    (BINARY, '{"reason": "kind"}', None),
    (BINARY, '{"value": true, "value": false}', None),
    (BINARY, '{"value": true} {"value": false}', None),
    (BINARY, 'Here it is: {"value": true}', None),
    (BINARY, '{"value": true', None),
    (BINARY, "[" * 100_000, None),
    (NUMBER, '{"value": 7}', 7.0),
    (NUMBER, '{"value": 0.5}', 0.5),
    (NUMBER, '{"value": 11}', None),
    (NUMBER, '{"value": -0.1}', None),
    (NUMBER, '{"value": true}', None),
    (NUMBER, '{"value": "7"}', None),
    (NUMBER, '{"value": NaN}', None),
    (NUMBER, f'{{"value": {10**400}}}', None),
    (CATEGORY, '{"value": "warm"}', "warm"),
    (CATEGORY, '{"value": "Warm"}', None),
    (CATEGORY, '{"value": ["warm"]}', None),
    (PAIR, '{"reason": "kind", "value": "B"}', "B"),
    (PAIR, '{"value": "tie"}', "tie"),
    (PAIR, '{"value": "a"}', None),
    (PAIR, '{"value": true}', None),
    (PAIR, '{"value": 0.5}', None),
    (PAIR, "A", None),
]


@pytest.mark.parametrize(("settings", "text", "value"), READ)
def test_replies(settings: JudgeGrader, text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ReplyError):
            read_reply(settings, text)
        return
    found, reason = read_reply(settings, text)
    assert (found, type(found)) == (value, type(value))
    assert reason == ("kind" if "kind" in text else None)


@pytest.mark.parametrize(
    ("graders", "words"),
    [
        ([judge(endpoints=[], api_key_env="KEY")], "api_key_env is for endpoints"),
        ([judge(revision="main")], "revision is for a model that the run serves"),
        ([judge(value="number")], "needs range"),
        ([judge(label="a"), judge(label="b", value="number", range=[0.0, 1.0])], "judge b has other values"),
        ([judge(), judge(model="n")], "names a grader twice"),
        ([judge(rubric="refusals")], "none of refusal, apology, hedging, self_correction, sentiment"),
        ([judge(rubric="sentiment", value="binary")], "has values of its own; remove value"),
        ([judge(api_request={"messages": []})], "may not hold messages"),
        ([judge(endpoints=["http://user:secret@host"])], "must be an http"),
        ([judge(compare_with="filler")], "compare_with = 'filler' is no reference; name one of control"),
        ([judge(compare_with="control", value="number", range=[0.0, 1.0])], "remove value: number"),
        ([judge(compare_with="control", labels="l.csv")], "labels are of answers"),
        ([judge(compare_with="control", margin=0.1)], "equivalence, which is not tested"),
        ([judge(compare_with="control", rubric="refusal")], "rubric refusal is for one answer"),
        ([judge(label="a"), judge(label="b", compare_with="control")], "judge b has other values"),
        (["number", judge(rubric="guess")], "takes 2 to 26 variants, and there are 1"),
        (["number", judge(rubric="guess", labels="l.csv")], "a guess of the variant is no outcome; remove labels"),
        (["number", judge(rubric="guess", value="binary")], "rubric guess has values of its own"),
        (["number", judge(guess=True, value="number", range=[0.0, 1.0])], "has no number; remove value and range"),
    ],
)
def test_judges_that_are_refused(graders: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        parse_config({"experiment": {"name": "one"}, "graders": graders})
    assert "secret" not in str(error.value)


def test_a_budget_needs_the_price_of_each_judge() -> None:
    values = {"experiment": {"name": "one"}, "graders": [judge()], "workers": {"max_cost": 1.0}}
    with pytest.raises(ConfigError, match=r"price of the judge judge-x in workers\.prices"):
        parse_config(values)
    values["workers"] = {"max_cost": 1.0, "prices": {"judge-x": {"input": 1.0, "output": 1.0}}}
    assert parse_config(values).judges
    assert json.dumps(parse_config(values).resolved())


@pytest.mark.parametrize("name", ["refusal", "apology", "hedging", "self_correction", "sentiment"])
def test_a_ready_rubric_is_asked_by_its_text(name: str) -> None:
    made = config(rubric=name)
    (settings,) = made.judges
    assert (settings.outcome, settings.type) == (f"judge_{name}", "number" if name == "sentiment" else "binary")
    assert settings.rubric == ready_rubrics()[name]["text"] == settings.asked["rubric"]
    system = judge_request(settings, 0, "Legs?", ["Eight."])["messages"][0]["content"]
    assert settings.rubric in system
    assert ("a number from -1 to 1" if name == "sentiment" else "true or false") in system
    assert parse_config(made.resolved()) == made
    # A text that changes, as with a later version, makes the judgements again.
    before = Triggers.of(made).judges
    changed = parse_config({**made.resolved(), "graders": [{**settings.model_dump(), "rubric": "Is it kind?"}]})
    assert Triggers.of(changed).judges.keys() == before.keys()
    assert Triggers.of(changed).judges != before


def test_a_judge_guesses_among_all_variants_and_sees_none() -> None:
    values: dict[str, Any] = {"experiment": {"name": "one"}, "variants": VARIANTS, "prompt": {"formats": 1}}
    with pytest.raises(ConfigError, match="is no outcome; add a grader"):
        parse_config({**values, "prompt": {}, "graders": [judge(rubric="guess")]})
    made = parse_config({**values, "graders": ["number", judge(rubric="guess")]})
    (settings,) = made.judges
    assert len(made.variants) > len(VARIANTS)  # a format of the prompt is no tone
    assert [name for name, _ in settings.judged((name, "x") for name in made.variants)] == list(VARIANTS)
    del values["prompt"]
    made = parse_config({**values, "graders": ["number", judge(rubric="guess")]})
    assert (settings.outcome, settings.type, sorted(settings.names)) == ("judge_guess", "category", sorted(VARIANTS))
    assert parse_config(made.resolved()) == made
    requests = [judge_request(settings, 1, SAMPLE.question, ["Eight."]) for _ in VARIANTS]
    assert all(request == requests[0] for request in requests)
    check_blind(made, settings, opening_messages(made, "anger", SAMPLE.question, 0), SAMPLE, ["Eight."], requests[0])
    assert read_reply(settings, '{"value": "anger"}')[0] == "anger"
    with pytest.raises(ReplyError):
        read_reply(settings, '{"value": "reformatted-1"}')
    assert [outcome.label for outcome in outcomes_of(made)] == ["number"]
    assert lone_judges(made) == []
    # The order of the names is not that of the variants, so that the first is not always control.
    first = {
        parse_config({**made.resolved(), "experiment": {"name": "one", "seed": seed}}).judges[0].names[0]
        for seed in range(20)
    }
    assert first == set(VARIANTS)


def test_another_reference_to_compare_with_makes_the_judgements_again_and_nothing_else() -> None:
    variants = {**VARIANTS, "filler": {"text": "There are trees."}}
    values: dict[str, Any] = {"experiment": {"name": "one"}, "variants": variants}
    alone, control, filler = (
        Triggers.of(parse_config({**values, "graders": ["number", judge(compare_with=one)]}))
        for one in (None, "control", "filler")
    )
    assert len({tuple(one.judges.values()) for one in (alone, control, filler)}) == 3
    for field in ("trajectories", "outcomes", "capture", "answers"):
        assert getattr(alone, field) == getattr(control, field) == getattr(filler, field)
    # Another variant changes what a judge guesses among, and nothing of what is compared.
    graders = ["number", judge(label="pair", compare_with="control"), judge(rubric="guess")]
    fewer, more = (
        Triggers.of(parse_config({"experiment": {"name": "one"}, "variants": one, "graders": graders})).judges
        for one in (VARIANTS, variants)
    )
    assert fewer["pair"] == more["pair"]
    assert fewer["judge_guess"] != more["judge_guess"]


def test_a_guess_is_one_of_the_variants() -> None:
    values: dict[str, Any] = {"experiment": {"name": "one"}, "variants": VARIANTS}
    made = parse_config({**values, "graders": ["number", judge(rubric="guess")]})
    assert set(made.judges[0].names) == set(VARIANTS)
    assert parse_config(made.resolved()) == made
    own = judge(guess=True, value="category", categories=["kind", "rude"])
    with pytest.raises(ConfigError, match="a guess is one of the variants' names; remove it"):
        parse_config({**values, "graders": ["number", own]})


def test_a_judge_that_the_run_serves() -> None:
    values: dict[str, Any] = {"experiment": {"name": "one"}, "graders": [judge(endpoints=[], model="org/other")]}
    made = parse_config(values)
    assert made.workers.gpu_sharing == "turns"
    server = judge_server(made, made.judges[0])
    assert (server.model.source, server.server_kinds) == ("org/other", ["vllm"])
    assert server.workers == made.workers
    # The parser of an agent's tools belongs to the model that answers: another one may have no such tokens.
    agent = {"kind": "agent", "tools": ["tests.tools:calculator"], "tool_parser": "mistral"}
    with_tools = parse_config({**values, "conversation": agent})
    assert judge_server(with_tools, with_tools.judges[0]).conversation.tool_parser is None
    # Its weights are part of what a judgement is made from; those of a judge behind an API are not known.
    known, pinned = Triggers.of(made), Triggers.of(config(endpoints=[], model="org/other", revision="v2"))
    assert known.judges != pinned.judges
    assert known.judge_models.keys() == {"judge"}
    assert Triggers.of(config()).judge_models == {}
    for section, words in (({"workers": {"gpu_sharing": "together"}}, "gpu_sharing: turns"),
                           ({"deploy": {"backend": "ssh", "host": "there"}}, r"deploy\.backend serves one model")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            parse_config({**values, **section})
    # Models that judge have their turns after all that answer, and a judge behind an API that of its experiment.
    api = parse_config({"experiment": {"name": "two"}, "model": {"source": "org/third"}, "graders": [judge()]})
    study = Study("both", {"one": made, "two": api})
    assert turns(study) == {"one": (0, 0), "one/judge": (2, 0), "two": (1, 1), "two/judge": (1, 1)}
    assert "then vLLM servers of org/other to judge" in budget(Study(None, {"one": made}), {"one": Targets(made, Layout(Path("x")))})  # fmt: skip
