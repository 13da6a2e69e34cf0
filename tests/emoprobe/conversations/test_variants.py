"""How variants change the opening messages."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.config.science.formats import LABELS, reformatted
from emoprobe.config.science.prompt import Prompt
from emoprobe.conversations.requests import chat_request, message_spans
from emoprobe.conversations.samples import captured_pairs, experiment_pairs, known_pairs
from emoprobe.conversations.variants import (
    TransformError,
    VariantError,
    apply_transform,
    base_messages,
    identity,
    load_transform,
    opening_messages,
    paraphrase_index,
    place,
    scrambled,
    text_shift,
    variant_texts,
)
from emoprobe.functions import load_function
from emoprobe.results.trajectory import Sample
from emoprobe.workflow.checks import check_config
from emoprobe.workflow.triggers import Triggers

PROMPT = Prompt(system="Solve.", template="Q: {question}\nA:")


def config_with(system: str | None = "Solve.", **variant: Any) -> Config:
    return parse_config(
        {"prompt": {"system": system, "template": "Q: {question}\nA:"}, "variants": {"control": {}, "v": variant}}
    )


@pytest.mark.parametrize(
    ("placement", "system", "expected"),
    [
        ("user_prefix", "Solve.", [("system", "Solve."), ("user", "Calm!\n\nQ: 1?\nA:")]),
        ("user_suffix", "Solve.", [("system", "Solve."), ("user", "Q: 1?\nA:\n\nCalm!")]),
        ("system_prefix", "Solve.", [("system", "Calm!\n\nSolve."), ("user", "Q: 1?\nA:")]),
        ("system_suffix", "Solve.", [("system", "Solve.\n\nCalm!"), ("user", "Q: 1?\nA:")]),
        ("user_prefix", None, [("user", "Calm!\n\nQ: 1?\nA:")]),
        ("system_prefix", None, [("system", "Calm!"), ("user", "Q: 1?\nA:")]),
        ("system_suffix", None, [("system", "Calm!"), ("user", "Q: 1?\nA:")]),
    ],
)
def test_placements(placement: str, system: str | None, expected: list[tuple[str, str]]) -> None:
    config = config_with(system, text="Calm!", placement=placement)
    messages = opening_messages(config, "v", "1?", 0)
    assert [(message["role"], message["content"]) for message in messages] == expected
    spans = message_spans(config, messages, "1?")
    for name, text in (("prefix", "Calm!"), ("question", "1?"), ("system", system)):
        if text is None:
            assert getattr(spans, name) is None
        else:
            number, start, end = getattr(spans, name) or (0, 0, 0)
            assert messages[number]["content"][start:end] == text


def test_control_stays_as_it_is() -> None:
    config = config_with(text="x")
    messages = opening_messages(config, "control", "1?", 3)
    assert messages == base_messages(config.prompt, "1?")
    assert message_spans(config, messages, "1?").prefix is None


def test_paraphrases_go_by_sample_index() -> None:
    config = config_with(texts=["a", "b", "c"])
    found = [opening_messages(config, "v", "1?", index)[1]["content"][0] for index in range(7)]
    assert found == ["a", "b", "c", "a", "b", "c", "a"]


def test_braces_in_questions_are_left_alone() -> None:
    assert base_messages(PROMPT, "{x} and {question}")[1]["content"] == "Q: {x} and {question}\nA:"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_transforms", raising=False)
    load_function.cache_clear()
    return tmp_path / "my_transforms.py"


def test_a_transform_gets_a_copy_and_returns_messages(module: Path) -> None:
    module.write_text(
        "def shout(messages):\n"
        "    messages[-1]['content'] = messages[-1]['content'].upper()\n"
        "    return [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Yes?'}, *messages]\n"
    )
    config = config_with(transform="my_transforms:shout")
    messages = opening_messages(config, "v", "how many?", 0)
    assert [message["role"] for message in messages] == ["user", "assistant", "system", "user"]
    assert messages[-1]["content"] == "Q: HOW MANY?\nA:"
    assert base_messages(config.prompt, "how many?")[1]["content"] == "Q: how many?\nA:"


def test_the_prefix_of_a_transform_is_what_it_added(module: Path) -> None:
    module.write_text("def nag(m):\n    m[-1]['content'] = 'Well, well. ' + m[-1]['content']\n    return m\n")
    config = config_with(transform="my_transforms:nag")
    messages = opening_messages(config, "v", "1?", 0)
    number, start, end = message_spans(config, messages, "1?").prefix or (0, 0, 0)
    assert messages[number]["content"][start:end] == "Well, well."


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no')", ["raised ValueError: no", "my_transforms.py, line 2"]),
        ("return None", ["returned NoneType"]),
        ("return {}", ["returned dict"]),
        ("return []", ["empty list"]),
        ("return 'text'", ["returned str"]),
        ("return ['text']", ["item 0 is str"]),
        ("return [{'role': 'robot', 'content': 'x'}]", ["role 'robot'", "system, developer, user"]),
        ("return [{'content': 'x'}]", ["role None"]),
        ("return [{'role': 'user'}]", ["content of type NoneType"]),
        ("return [{'role': 'user', 'content': 3}]", ["content of type int"]),
        ("return [{'role': 'user', 'content': 'x', 'name': {1, 2}}]", ["no JSON"]),
    ],
)
def test_a_bad_transform_is_named(module: Path, body: str, words: list[str]) -> None:
    module.write_text(f"def f(messages):\n    {body}\n")
    with pytest.raises(TransformError) as caught:
        apply_transform("v", "my_transforms:f", base_messages(PROMPT, "1?"))
    for word in ["variants.v.transform", "my_transforms:f", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "word"),
    [("no_such_module:f", "cannot be imported"), ("os:no_such", "cannot be imported"), ("os:sep", "is no function")],
)
def test_a_missing_transform_is_named(reference: str, word: str) -> None:
    with pytest.raises(TransformError, match=word):
        load_transform("v", reference)


def test_identity_covers_what_the_messages_depend_on(module: Path) -> None:
    def identity_of(**variant: Any) -> str:
        return identity(config_with(**variant), "v")

    text = identity_of(text="a", valence="negative")
    assert text == identity_of(texts=["a"], valence="positive")
    assert text != identity_of(text="b")
    assert text != identity_of(text="a", placement="user_suffix")
    assert identity_of() == identity_of(placement="user_suffix")
    module.write_text("def f(m): return m\n")
    before = identity_of(transform="my_transforms:f")
    module.write_text("def f(m): return m[:1]\n")
    assert identity_of(transform="my_transforms:f") != before


def test_only_a_transform_that_begins_the_answer_has_another_identity_than_in_version_0_2(module: Path) -> None:
    module.write_text(
        "def same(m): return m\n"
        "def begun(m): return [*m, {'role': 'assistant', 'content': 'So'}]\n"
        "def fails(m): raise ValueError\n"
    )
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    for name, end in (("same", ""), ("begun", " prefill"), ("fails", "")):
        found = identity(config_with(transform=f"my_transforms:{name}"), "v")
        assert found == f"my_transforms:{name}@{digest}{end}"


def test_a_prefill_begins_the_answer_and_that_of_the_variant_goes_before_the_prompts(module: Path) -> None:
    module.write_text("def begun(m): return [*m, {'role': 'assistant', 'content': 'So'}]\n")
    variants = {
        "control": {},
        "calm": {"text": "Rest."},
        "v": {"prefill": "I"},
        "twice": {"transform": "my_transforms:begun"},
    }
    config = parse_config({"prompt": {"prefill": "The answer"}, "variants": variants})
    begun = {name: opening_messages(config, name, "1?", 0)[-1] for name in ("control", "calm", "v")}
    assert begun == {
        name: {"role": "assistant", "content": text}
        for name, text in {"control": "The answer", "calm": "The answer", "v": "I"}.items()
    }
    with pytest.raises(VariantError, match=r"variants.twice.transform: .* ends with a message of the assistant"):
        opening_messages(config, "twice", "1?", 0)
    assert [line.partition(":")[0] for line in check_config(config, None, Path())] == ["variants.twice.transform"]


def test_a_prefill_makes_again_what_it_begins_and_nothing_else() -> None:
    def triggers(prefill: str | None = None, own: str | None = None) -> Triggers:
        variants = {"control": {}, "v": {"text": "a", "prefill": own}}
        return Triggers.of(parse_config({"prompt": {"prefill": prefill}, "variants": variants}))

    plain, begun, own = triggers(), triggers("So"), triggers(own="So")
    assert plain == Triggers.of(parse_config({"variants": {"control": {}, "v": {"text": "a"}}}))
    assert plain.answers == own.answers != begun.answers
    assert plain.trajectories["control"] == own.trajectories["control"] != begun.trajectories["control"]
    assert len({each.trajectories["v"] for each in (plain, begun, own)}) == 3
    with pytest.raises(ConfigError, match="must hold more than white space"):
        triggers(" ")


def scrambling(seed: int = 42, source: str = "tone", placement: str = "user_prefix", **tone: Any) -> Config:
    tone = tone or {"texts": ["one two three four", "five", "six six seven"]}
    return parse_config(
        {
            "experiment": {"seed": seed},
            "variants": {"control": {}, "tone": tone, "words": {"scramble": source, "placement": placement}},
        }
    )


def test_scrambled_words_are_those_of_the_other_variant_text_by_text() -> None:
    config = scrambling()
    texts, originals = variant_texts(config, "words"), variant_texts(config, "tone")
    assert [sorted(text.split()) for text in texts] == [sorted(text.split()) for text in originals]
    assert texts[1] == "five"
    assert texts[0] != originals[0]
    assert texts[2] != originals[2]
    assert variant_texts(config, "words") == texts
    assert [paraphrase_index(config, "words", index) for index in range(4)] == [0, 1, 2, 0]
    assert paraphrase_index(config, "control", 3) is None
    # A text that is listed again is no further one: the number of texts decides how far a result holds for others.
    again = scrambling(texts=["one two three 4", "five", "five"])
    assert [paraphrase_index(again, "words", index) for index in range(4)] == [0, 1, 1, 0]
    messages = opening_messages(config, "words", "1?", 4)
    assert messages[-1]["content"].startswith("five\n\n")
    suffixed = opening_messages(scrambling(placement="user_suffix"), "words", "1?", 3)
    assert suffixed[-1]["content"].endswith("\n\n" + texts[0])


def test_the_identity_of_scrambled_words_covers_their_source() -> None:
    before = identity(scrambling(), "words")
    assert before == identity(scrambling(), "words")
    assert before != identity(scrambling(texts=["one two three 4", "five", "six six seven"]), "words")
    assert before != identity(scrambling(placement="user_suffix"), "words")
    assert before != identity(scrambling(seed=43), "words")
    assert before != identity(scrambling(), "tone")


@pytest.mark.parametrize(
    ("source", "tone", "words"),
    [
        ("tones", {"text": "a b"}, ["'tones'", "is no variant", "control, tone, words"]),
        ("control", {"text": "a b"}, ["'control'", "has no text"]),
        ("words", {"text": "a b"}, ["'words'", "has no text"]),
        ("tone", {"transform": "os:getcwd"}, ["'tone'", "has no text"]),
    ],
)
def test_what_cannot_be_scrambled_is_named(source: str, tone: dict[str, Any], words: list[str]) -> None:
    config = scrambling(source=source, **tone)
    with pytest.raises(VariantError) as caught:
        variant_texts(config, "words")
    for word in ["variants.words.scramble", *words]:
        assert word in str(caught.value)
    assert identity(config, "words")  # a digest is there all the same: the plan's checks say what is wrong


def test_a_variant_goes_one_way_only() -> None:
    with pytest.raises(ConfigError, match="text and scramble; give one of text, texts, transform, scramble"):
        config_with(text="a", scramble="control")


@given(st.text(alphabet="ab \n\tc", max_size=30), st.integers(0, 2**31 - 1))
def test_scrambling_keeps_the_words_and_changes_their_order(text: str, seed: int) -> None:
    words = text.split()
    found = scrambled(text, seed)
    assert sorted(found.split()) == sorted(words)
    assert (found.split() != words) == (len(set(words)) > 1)
    assert scrambled(text, seed) == found


def test_examples_are_earlier_turns_by_the_same_template() -> None:
    examples = [
        {"question": "2 + 2?", "answer": "Answer: 4"},
        {"question": "Which?", "answer": "Answer: B", "choices": ["x", "y"]},
    ]
    config = parse_config(
        {
            "prompt": {"system": "Solve.", "template": "Q: {question}\nA:", "examples": examples},
            "variants": {"control": {}, "v": {"text": "Calm!"}, "s": {"text": "So!", "placement": "system_suffix"}},
        }
    )
    assert [(message["role"], message["content"]) for message in opening_messages(config, "v", "2 + 2?", 0)] == [
        ("system", "Solve."),
        ("user", "Q: 2 + 2?\nA:"),
        ("assistant", "Answer: 4"),
        ("user", "Q: Which?\nA. x\nB. y\nA:"),
        ("assistant", "Answer: B"),
        ("user", "Calm!\n\nQ: 2 + 2?\nA:"),
    ]
    for name, place_of_prefix, text in (("v", 5, "Calm!"), ("s", 0, "So!")):
        messages = opening_messages(config, name, "2 + 2?", 0)
        spans = message_spans(config, messages, "2 + 2?")
        assert spans.prefix is not None
        assert spans.question is not None
        assert spans.system is not None
        for (number, start, end), place_of, expected in (
            (spans.prefix, place_of_prefix, text),
            (spans.question, 5, "2 + 2?"),
            (spans.system, 0, "Solve."),
        ):
            assert (number, messages[number]["content"][start:end]) == (place_of, expected)
    assert message_spans(config, opening_messages(config, "control", "2 + 2?", 0), "2 + 2?").prefix is None


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["user_prefix", "user_suffix", "system_suffix"]))
def test_placing_adds_the_text_and_nothing_else(text: str, content: str, placement: str) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    placed = place(messages, text, placement)
    assert [message["role"] for message in placed] == ["system", "user"]
    before = "".join(message["content"] for message in messages)
    assert sorted("".join(message["content"] for message in placed)) == sorted(before + text + "\n\n")
    assert messages[1]["content"] == content


def test_texts_are_dealt_by_a_seeded_permutation() -> None:
    def dealt(texts: int, samples: int, seed: int = 42) -> list[int]:
        config = parse_config(
            {
                "experiment": {"seed": seed},
                "dataset": {"samples": samples},
                "prompt": {"text_order": "permuted"},
                "variants": {name: {"texts": [f"{name} {n}." for n in range(texts)]} for name in ("v", "w")}
                | {"control": {}},
            }
        )
        numbers = [paraphrase_index(config, "v", index) for index in range(samples)]
        # Sides of as many texts are in step, and the messages hold what the index says.
        assert numbers == [paraphrase_index(config, "w", index) for index in range(samples)]
        for index, number in enumerate(numbers):
            assert opening_messages(config, "v", "1?", index)[-1]["content"].startswith(f"v {number}.")
        return [number for number in numbers if number is not None]

    numbers = dealt(8, 40)
    blocks = [numbers[start : start + 8] for start in range(0, 40, 8)]
    assert all(sorted(block) == list(range(8)) for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1
    assert [number % 2 for number in numbers] == [index % 2 for index in range(40)]
    assert numbers == dealt(8, 64)[:40]
    assert numbers != dealt(8, 40, seed=7)
    assert sorted(dealt(9, 9)) == list(range(9))


def test_the_order_of_version_0_2_stays_the_default() -> None:
    before = parse_config({"variants": {"control": {}, "v": {"texts": ["a", "b"]}}})
    assert "text_order" not in before.prompt.content()
    assert "text_order" not in before.described()["prompt"]
    assert [paraphrase_index(before, "v", index) for index in range(4)] == [0, 1, 0, 1]


def test_every_ask_of_a_question_has_another_text() -> None:
    variants: dict[str, Any] = {"control": {}, "filler": {"texts": [f"Text {n}." for n in range(8)], "asks": 3}}
    config = parse_config(
        {
            "variants": variants,
            "dataset": {"samples": 16, "id_prefix": "gsm"},
            "prompt": {"text_order": "permuted"},
            "generation": {"draws": 2, "temperature": 1.0},
        }
    )
    dealt = [[paraphrase_index(config, "filler", index, draw) for draw in range(1, 7)] for index in range(16)]
    assert all(first == second for row in dealt for first, second in zip(row[::2], row[1::2], strict=True))
    assert all(len(set(row)) == 3 for row in dealt)
    for ask in range(3):
        assert sorted(row[2 * ask] or 0 for row in dealt[:8]) == list(range(8))
    # The request holds the text that the index says, and every trajectory has a seed of its own.
    question = Sample(sample_id="gsm_0004", index=3, question="1?", answer="1", source={})
    requests = [chat_request(config, "m", "filler", question, draw) for draw in range(1, 7)]
    for request, number in zip(requests, dealt[3], strict=True):
        assert request["messages"][-1]["content"].startswith(f"Text {number}.")
    assert len({request["seed"] for request in requests}) == 6
    once = parse_config(
        {**config.described(), "variants": {**variants, "filler": {"texts": variants["filler"]["texts"]}}}
    )
    assert [paraphrase_index(once, "filler", index) for index in range(16)] == [row[0] for row in dealt]
    assert identity(once, "filler") == identity(config, "filler")
    names = [name for variant, name in experiment_pairs(config) if variant == "filler"]
    assert len(names) == len(set(names)) == 16 * 6
    assert len(experiment_pairs(config)) == 16 * 8
    assert len(captured_pairs(config)) == 16 * 4
    last = [("filler", f"{names[0]}-d6"), ("control", f"{names[0]}-d2")]
    assert known_pairs(config, [*last, ("filler", f"{names[0]}-d7"), ("control", f"{names[0]}-d3")]) == last


@pytest.mark.parametrize("texts", [1, 3, 8, 64, 65])
def test_asks_are_far_apart_and_more_of_them_change_none(texts: int) -> None:
    shifts = [text_shift(texts, ask) for ask in range(texts)]
    assert sorted(shifts) == list(range(texts))
    with pytest.raises(ValueError, match=f"{texts + 1} asks need as many texts"):
        text_shift(texts, texts)
    if texts == 64:
        assert shifts[:4] == [0, 32, 16, 48]


def test_asks_need_texts() -> None:
    for variant in ({"text": "One."}, {}, {"scramble": "joy"}):
        with pytest.raises(ConfigError, match=r"variants.filler.asks = 3: every ask of a question has another text"):
            parse_config(
                {"variants": {"control": {}, "joy": {"texts": ["a b", "c d"]}, "filler": {**variant, "asks": 3}}}
            )


TEMPLATES = (
    "{question}",
    '{question}\n\nThink step by step, then write the final answer as "Answer: [number]".',
    "Q: {question}\nA:",
    "Solve this in {{braces}}.\n{question}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_formats_keep_every_word_and_number(template: str) -> None:
    question = "How many are 12 + 30?\nTake  {both} (or 7.5)."
    original = template.format(question=question)
    found = reformatted(template, 42)
    assert len(found) == len(set(found)) >= 3
    labels = {*LABELS, *LABELS.values()}
    for text in found:
        content = text.format(question=question)
        assert content != original
        assert question in content
        rest = content.replace(question, "\0")
        words = re.findall(r"\w+", rest)
        expected = re.findall(r"\w+", original.replace(question, "\0"))
        assert [word for word in words if word not in labels] == [word for word in expected if word not in labels]
        assert len(words) - len(expected) <= 2
    # An instruction after the question is not followed by a label that asks for the answer at once.
    if "Think" in template:
        assert all(text.endswith('"Answer: [number]".') for text in found)
    assert found == reformatted(template, 42)
    assert sorted(found) == sorted(reformatted(template, 7))


def test_formats_are_variants_that_a_resolved_config_has_already() -> None:
    sections: dict[str, Any] = {
        "prompt": {"template": "{question}", "examples": [{"question": "1 + 1", "answer": "2"}]},
        "variants": {"control": {}},
    }
    plain, two, four = (
        parse_config({**sections, "prompt": {**sections["prompt"], "formats": number}}) for number in (0, 2, 4)
    )
    assert list(two.variants) == ["control", "reformatted-1", "reformatted-2"]
    assert list(four.variants.items())[:3] == list(two.variants.items())
    assert parse_config(two.resolved()) == two
    # What exists stays up to date.
    assert plain.prompt.content() == four.prompt.content()
    assert "formats" not in plain.described()["prompt"]
    assert len({identity(four, name) for name in four.variants}) == 5
    template = two.variants["reformatted-1"].template
    assert template is not None
    messages = opening_messages(two, "reformatted-1", "3 + 4", 0)
    assert [message["content"] for message in messages if message["role"] == "user"] == [
        template.format(question=question) for question in ("1 + 1", "3 + 4")
    ]
    assert opening_messages(two, "control", "3 + 4", 0) == opening_messages(plain, "control", "3 + 4", 0)
    with pytest.raises(ConfigError, match=r"variants.reformatted-1: variants of that name are made by prompt.formats"):
        parse_config({**sections, "variants": {"control": {}, "reformatted-1": {"text": "x"}}})
    with pytest.raises(ConfigError, match=r"prompt.formats = 32: prompt.template has 3 other formats"):
        parse_config({"prompt": {"template": "Q: {question}\nA:", "formats": 32}})
