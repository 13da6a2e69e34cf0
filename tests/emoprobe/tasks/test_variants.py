"""How variants change the opening messages."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.config.science.prompt import Prompt
from emoprobe.config.science.variants import Variant
from emoprobe.tasks.requests import message_spans
from emoprobe.tasks.variants import (
    TransformError,
    apply_transform,
    base_messages,
    identity,
    load_transform,
    opening_messages,
    place,
)

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
    load_transform.cache_clear()
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
    text = Variant(text="a", valence="negative")
    assert identity(text) == identity(Variant(texts=["a"], valence="positive"))
    assert identity(text) != identity(Variant(text="b"))
    assert identity(text) != identity(Variant(text="a", placement="user_suffix"))
    assert identity(Variant()) == identity(Variant(placement="user_suffix"))
    module.write_text("def f(m): return m\n")
    before = identity(Variant(transform="my_transforms:f"))
    module.write_text("def f(m): return m[:1]\n")
    assert identity(Variant(transform="my_transforms:f")) != before


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["user_prefix", "user_suffix", "system_suffix"]))
def test_placing_adds_the_text_and_nothing_else(text: str, content: str, placement: str) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    placed = place(messages, text, placement)
    assert [message["role"] for message in placed] == ["system", "user"]
    before = "".join(message["content"] for message in messages)
    assert sorted("".join(message["content"] for message in placed)) == sorted(before + text + "\n\n")
    assert messages[1]["content"] == content
