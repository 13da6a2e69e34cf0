"""The renderer: equal to transformers, on a fixed day, and exact about where the parts of a conversation are."""

from __future__ import annotations

import datetime
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from emoprobe.config.files import load_config
from emoprobe.conversations.rendering import PromptError, Renderer, TemplateError
from emoprobe.conversations.requests import message_spans
from emoprobe.conversations.stored_spans import stored_spans
from emoprobe.conversations.templates import Vocabulary
from emoprobe.conversations.variants import opening_messages
from emoprobe.results.trajectory import AgentState, Message
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML
from tests.emoprobe.conversations.templates import GEMMA, LLAMA, LLAMA_FIXED, QWEN, TEMPLATES
from tests.workspace import ROOT

DAY = datetime.date(2025, 3, 9)
Make = Callable[..., Renderer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A renderer of a template."""

    def load(template: str | None = CHATML) -> Renderer:
        return Renderer.load(byte_tokenizer.write(Path(tempfile.mkdtemp(dir=tmp_path)), template))

    return load


def chat(*contents: str, roles: str = "su") -> list[Message]:
    names = {"s": "system", "u": "user", "a": "assistant", "d": "developer", "t": "tool"}
    return [{"role": names[role], "content": content} for role, content in zip(roles, contents, strict=True)]


def part(renderer: Renderer, ids: list[int], span: tuple[int, int] | None) -> str | None:
    return None if span is None else renderer.vocabulary.decode(ids[slice(*span)])


CONVERSATIONS = {
    "plain": chat("Be brief.", "What is 2 + 3?"),
    "no system": chat("What is 2 + 3?", roles="u"),
    "examples": chat("Be brief.", "1 + 1?", "Answer: 2", "What is 2 + 3?", roles="suau"),
    "spaces": chat("  Be brief.\n", "\n What is 2 + 3?  "),
    "markup": chat("Be <|im_end|> brief.", "What is <|im_start|>2?"),
    "empty system": chat("", "What is 2 + 3?"),
    "developer": chat("Be brief.", "What is 2 + 3?", roles="du"),
    "unicode": chat("Sei nett – ﬁne 🙂.", "Wie viel ist ２ + é + e\u0301?"),
    "thinking": chat("1?", "<think>hm</think>\n\nOne.", "2?", roles="uau"),
}
PREFILLS = {
    "plain": chat("Be brief.", "What is 2 + 3?", "The answer", roles="sua"),
    "spaces": chat("What is 2 + 3?", "The answer is ", roles="ua"),
    "repeated": chat("The answer", "What is 2 + 3? The answer", "The answer", roles="sua"),
}
ARGUMENTS: list[dict[str, Any]] = [{}, {"enable_thinking": False}, {"date_string": "1 Jan 2000"}, {"tools": []}]


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Clock:
        return cls(DAY.year, DAY.month, DAY.day)


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = byte_tokenizer.write(tmp_path, TEMPLATES[name])
    monkeypatch.setattr(chat_template_utils, "datetime", Clock)  # only in what it is compared with
    reference = AutoTokenizer.from_pretrained(folder)
    date = None if name == "llama-fixed" else DAY
    clock = {} if date is None else {"date_string": DAY.strftime("%d %b %Y")}
    opened = [(each, {"add_generation_prompt": True}) for each in CONVERSATIONS.values()]
    begun = [(each, {"continue_final_message": True}) for each in PREFILLS.values()]
    renderers = (Renderer.load(folder), Renderer.of(reference), Renderer.load(folder, "transformers"))
    compared = 0
    for arguments, (messages, turn) in itertools.product(ARGUMENTS, opened + begun):
        try:
            expected = reference.apply_chat_template(messages, tokenize=False, **turn, **(clock | arguments))
        except Exception:
            for renderer in renderers:
                with pytest.raises(TemplateError, match="the chat template"):
                    renderer.render(messages, arguments, date)
            continue
        ids = reference(expected, add_special_tokens=False)["input_ids"]
        for renderer in renderers:
            found = renderer.render(messages, arguments, date)
            assert (found.text, found.token_ids) == (expected, ids)
            assert (found.prefill is None) == ("add_generation_prompt" in turn)
        compared += 1
    assert compared >= len(ARGUMENTS) * (3 if name == "gemma" else 9)


def test_prompts_of_the_embedded_model_are_those_of_transformers(smollm2: Path) -> None:
    renderer, reference = Renderer.load(smollm2), AutoTokenizer.from_pretrained(smollm2)
    for file in ("config/config.yaml", "config/experiments/gsm8k.yaml", "config/experiments/four_variants.yaml"):
        config = load_config(ROOT / file)
        for index, (variant, question) in enumerate(
            (variant, question) for variant in config.variants for question in ("2 + 3?", "Straße, 1.000 €?", "  7\n")
        ):
            messages = opening_messages(config, variant, question, index)
            text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            marks = message_spans(config, messages, question)
            for found in (renderer.render(messages), renderer.render(messages, marks=marks.values())):
                assert found.text == text
                assert found.token_ids == reference(text, add_special_tokens=False)["input_ids"]
                assert found.left_out == ()


def test_no_clock_but_the_given_day_enters_a_prompt(make: Make) -> None:
    renderer = make(LLAMA)
    default = renderer.render(CONVERSATIONS["plain"])
    assert "Today Date: 26 Jul 2024\n" in default.text
    assert "Today Date: 09 Mar 2025\n" in renderer.render(CONVERSATIONS["plain"], date=DAY).text
    own = make(LLAMA_FIXED)
    assert own.render(CONVERSATIONS["plain"]) == default  # a day that the template names is its own …
    assert "Today Date: 09 Mar 2025\n" in own.render(CONVERSATIONS["plain"], date=DAY).text  # … unless one is given
    assert "Today Date: 1 Jan\n" in renderer.render(CONVERSATIONS["plain"], {"date_string": "1 Jan"}, DAY).text


def test_rendering_imports_no_heavy_package(tmp_path: Path) -> None:
    byte_tokenizer.write(tmp_path)
    script = (
        "import sys; from pathlib import Path; from emoprobe.conversations.rendering import Renderer\n"
        "Renderer.load(Path(sys.argv[1])).render([{'role': 'user', 'content': 'x'}])\n"
        "print([name for name in ('transformers', 'torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    ("system", "question"),
    [
        ("You are a calculator. For instance 2+3 is 5.", "2+3"),
        ("You answer.", "user"),
        ("You answer.", "assistant"),
        ("s", "s"),
        ("You answer.", "im_start"),
        ("Answer: 2+3 2+3", "2+3"),
    ],
)
def test_the_question_is_that_of_its_message(make: Make, name: str, system: str, question: str) -> None:
    renderer = make(TEMPLATES[name])
    roles = "uau" if name == "gemma" else "suau"
    messages = chat(*([] if name == "gemma" else [system]), question, question, f"Now: {question}", roles=roles)
    last = len(messages) - 1
    marks = {"question": (last, 5, 5 + len(question))}
    if name != "gemma":
        marks["system"] = (0, 0, len(system))
    found = renderer.render(messages, marks=marks)
    span = found.spans["question"]
    assert span is not None
    assert part(renderer, found.token_ids, span) == question
    assert part(renderer, found.token_ids, (span[0] - 5, span[0])) == "Now: "
    assert renderer.vocabulary.decode(found.token_ids[span[1] :]).count(question) <= CHATML.count(question)
    if name != "gemma":
        assert part(renderer, found.token_ids, found.spans["system"]) == system
        assert (found.spans["system"] or (0, 0))[1] <= span[0]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([name for name in TEMPLATES if name != "gemma"]),
    contents=st.tuples(texts, texts, texts, texts),
    data=st.data(),
)
def test_spans_are_exact_whatever_the_texts_are(
    renderers: dict[str, Renderer], name: str, contents: tuple[str, ...], data: st.DataObject
) -> None:
    renderer = renderers[name]
    messages = chat(*contents, roles="suau")
    low = data.draw(st.integers(0, len(contents[3])))
    marks = {"system": (0, 0, len(contents[0])), "question": (3, low, data.draw(st.integers(low, len(contents[3]))))}
    found = renderer.render(messages, marks=marks)
    # Bytes are tokens, so that a span has the bytes of its part and no other.
    for mark, (number, start, end) in marks.items():
        expected = contents[number][start:end]
        span = found.spans[mark]
        if span is None:
            assert not expected.strip() or mark in found.left_out or not expected
        else:
            got = part(renderer, found.token_ids, span)
            assert got is not None
            assert got.strip() == expected.strip()
            before = renderer.vocabulary.decode(found.token_ids[: span[0]])
            if mark == "question" and start and contents[3][:start].strip() == contents[3][:start]:
                assert before.endswith(contents[3][:start])


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    return {
        name: Renderer.load(byte_tokenizer.write(tmp_path_factory.mktemp(name), template))
        for name, template in TEMPLATES.items()
    }


CONTENT = "message['content']"


@pytest.mark.parametrize(
    ("template", "system", "question"),
    [
        (CHATML.replace("in messages", "in messages if message['role'] != 'system'"), None, "what is 2 + 3?"),
        (CHATML.replace(CONTENT, f"{CONTENT}[:20]"), "Be brief.", None),
        (CHATML.replace(CONTENT, f"{CONTENT}.upper()"), "BE BRIEF.", "WHAT IS 2 + 3?"),
        (CHATML.replace(CONTENT, f"{CONTENT}.replace('2', 'two')"), "Be brief.", "what is two + 3?"),
        (CHATML.replace(CONTENT, f"{CONTENT} + {CONTENT}"), "Be brief.", "what is 2 + 3?"),
    ],
)
def test_parts_that_a_template_changes_are_located_and_those_that_it_leaves_out_named(
    make: Make, template: str, system: str | None, question: str | None
) -> None:
    renderer = make(template)
    messages = chat("Be brief.", "Look at this closely: what is 2 + 3?")
    found = renderer.render(messages, marks={"system": (0, 0, 9), "question": (1, 22, 36), "prefix": None})
    parts = {"system": system, "question": question}
    assert set(found.left_out) == {name for name, text in parts.items() if text is None}
    assert {name: part(renderer, found.token_ids, span) for name, span in found.spans.items()} == parts


def test_a_template_that_looks_at_contents_is_read_all_the_same(make: Make) -> None:
    looks = CHATML.replace("message['content']", "(message['content'] if message['content'].startswith('Q') else 'no')")
    renderer = make(looks)
    found = renderer.render(chat("Quiet.", "Q: 2 + 3?"), marks={"system": (0, 0, 6), "question": (1, 0, 9)})
    assert found.left_out == ()
    assert "no" not in found.text
    assert found.spans == {"system": None, "question": None}  # not exactly known, so not said


def test_texts_of_private_use_are_no_signs(make: Make) -> None:
    renderer = make()
    question = "".join(map(chr, range(0xE000, 0xE010))) + "0.0"
    found = renderer.render(chat("Be brief.", question), marks={"question": (1, 2, len(question))})
    assert part(renderer, found.token_ids, found.spans["question"]) == question[2:]


def test_what_is_refused_says_why(make: Make) -> None:
    with pytest.raises(TemplateError, match="refuses these messages: System role not supported"):
        make(GEMMA).render(CONVERSATIONS["plain"])
    with pytest.raises(PromptError, match="has no chat template"):
        make(None).render(CONVERSATIONS["plain"])
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        make().render(chat("x", "\ud800"))
    with pytest.raises(PromptError, match="may not set messages, strftime_now"):
        make().render(CONVERSATIONS["plain"], {"messages": [], "strftime_now": 1})
    with pytest.raises(PromptError, match="cannot be loaded"):
        Renderer.load(Path("/nowhere"))
    with pytest.raises(TemplateError, match="leaves out the beginning of the answer"):
        make(CHATML.replace("in messages", "in messages[:-1]")).render(PREFILLS["plain"])


def test_a_template_cannot_reach_out_of_its_sandbox(make: Make) -> None:
    for template in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ ''.__class__.__base__ }}"):
        with pytest.raises(TemplateError):
            make(template + "{{ raise_exception('went on') if false }}").render(CONVERSATIONS["plain"])


def test_templates_are_found_where_transformers_finds_them(tmp_path: Path) -> None:
    byte_tokenizer.write(tmp_path, None, chat_template="one {{ messages[0].content }}")
    assert Renderer.load(tmp_path).render(chat("x", roles="u")).text == "one x"
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "tools"}]
    byte_tokenizer.write(tmp_path, None, chat_template=named)
    assert Renderer.load(tmp_path).render(chat("x", roles="u")).text == "two"
    assert Renderer.load(tmp_path).render(chat("x", roles="u"), {"tools": []}).text == "tools"
    byte_tokenizer.write(tmp_path, None)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "three"}))
    assert Renderer.load(tmp_path).render(chat("x", roles="u")).text == "three"
    byte_tokenizer.write(tmp_path, "four", chat_template="one")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/tool_use.jinja").write_text("five")
    assert Renderer.load(tmp_path).render(chat("x", roles="u")).text == "four"
    assert Renderer.load(tmp_path).render(chat("x", roles="u"), {"tools": []}).text == "five"
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert reference.apply_chat_template(chat("x", roles="u"), tokenize=False, tools=[]) == "five"


def test_special_tokens_have_their_names_in_either_form(tmp_path: Path) -> None:
    byte_tokenizer.write(tmp_path, "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}")
    settings_file = tmp_path / "tokenizer_config.json"
    values = json.loads(settings_file.read_text()) | {"eos_token": {"content": "<|im_end|>", "lstrip": False}}
    settings_file.write_text(json.dumps(values))
    assert Renderer.load(tmp_path).render(chat("x", roles="u")).text == "<|im_start|>|<|im_end|>|"


@pytest.mark.parametrize("question", ["What is 2 + 3?", "Straße 🙂 é?", "数字は七です"])
def test_a_tokenizer_without_offsets_gives_the_same_spans(smollm2: Path, question: str) -> None:
    fast = Renderer.load(smollm2)
    known = fast.vocabulary
    slow = Renderer(
        CHATML,
        Vocabulary(lambda text, _: (known.encode(text, False)[0], None), known.decode, known.names, known.control),
    )
    messages = chat("Be brief.", f"Hurry up!\n\n{question}")
    marks = {"system": (0, 0, 9), "prefix": (1, 0, 9), "question": (1, 11, 11 + len(question))}
    found = slow.render(messages, marks=marks)
    expected = Renderer(CHATML, known).render(messages, marks=marks)
    assert found.token_ids == expected.token_ids
    for name, span in found.spans.items():
        assert span is not None
        start, end = expected.spans[name] or (0, 0)
        assert abs(span[0] - start) <= 1  # a space before a word belongs to its token, which offsets leave out
        assert span[1] == end
    lossy = Vocabulary(
        lambda text, _: (known.encode(text, False)[0], None), lambda ids: known.decode(ids).lower(), {}, known.control
    )
    with pytest.raises(PromptError, match="no position can be located; save the model with a fast tokenizer"):
        Renderer(CHATML, lossy).render(messages, marks=marks)


def state_of(renderer: Renderer, messages: list[Message], text: str, **values: Any) -> AgentState:
    marks = {"system": (0, 0, 9), "question": (1, 0, len(messages[1]["content"]))}
    return AgentState(
        request={"messages": messages}, message_spans=marks, prompt_token_ids=renderer.encode(text)[0], **values
    )


@pytest.mark.parametrize(
    ("made_on", "values"),
    [
        (datetime.date(2026, 1, 31), {"timing": {"started": "2026-01-31T12:00:00.000+00:00"}}),
        (datetime.date(2026, 2, 1), {"timing": {"started": "2026-01-31T23:59:00.000+00:00"}}),
        (datetime.date(2026, 1, 30), {"timing": {"started": "2026-01-31T00:01:00.000+00:00"}}),
        (datetime.date(2030, 5, 5), {"date": "2030-05-05"}),
        (None, {"date": "2024-07-26"}),
        (datetime.date(2024, 7, 26), {"date": "2024-07-26"}),
        (datetime.date(2019, 1, 1), {}),  # no rendering gives these tokens; the parts are searched for
        (datetime.date(2019, 1, 1), {"timing": {"started": "2026-01-31T00:01:00.000+00:00"}}),
    ],
)
def test_stored_prompts_of_any_day_are_located(
    make: Make, made_on: datetime.date | None, values: dict[str, Any]
) -> None:
    renderer = make(LLAMA)
    messages = chat("Date: 2 .", "2")  # the question is in the date, and in the system message
    prompt = renderer.render(messages, date=made_on)
    spans = stored_spans(renderer, state_of(renderer, messages, prompt.text, **values))[0]
    assert part(renderer, prompt.token_ids, spans["system"]) == "Date: 2 ."
    assert part(renderer, prompt.token_ids, spans["question"]) == "2"
    assert (spans["question"] or (0, 0))[0] > (spans["system"] or (0, 0))[1]


def test_stored_prompts_of_another_template_are_searched(make: Make) -> None:
    old, new = make(QWEN), make(CHATML)
    messages = chat("Be brief.", "Be brief. What is 2 + 3?")
    prompt = old.render(messages)
    text = f"Something else: {prompt.text}"
    spans = stored_spans(new, state_of(new, messages, text))[0]
    ids = new.encode(text)[0]
    assert part(new, ids, spans["question"]) == "Be brief. What is 2 + 3?"
    assert part(new, ids, spans["system"]) == "Be brief."
    gone = stored_spans(new, state_of(new, messages, "nothing of it"))[0]
    assert gone == {"system": None, "question": None}


def test_stored_prompts_of_a_closed_beginning_are_located(make: Make) -> None:
    renderer = make()
    messages = chat("Be brief.", "2 + 3?", "So", roles="sua")
    for continued in (True, False):
        prompt = renderer.render(messages, continued=continued)
        spans = stored_spans(renderer, state_of(renderer, messages, prompt.text))[0]
        assert part(renderer, prompt.token_ids, spans["question"]) == "2 + 3?"
