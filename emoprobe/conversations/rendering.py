"""Render messages to the text, the token ids and the token spans that a model is given.

There is one renderer: the pool makes every prompt with it, the capture server those of its other clients, and the
checks before a run look at what it makes. It compiles the chat template itself, in the same sandbox as transformers,
because a template's clock must show a fixed date and no library may be patched for that.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from emoprobe.config.science.generation import SWITCHES
from emoprobe.conversations.thoughts import ThoughtMarkers
from emoprobe.models.positions import token_span
from emoprobe.results.activation_folder import TokenSpan
from emoprobe.results.trajectory import CALLS, AgentState, EarlierTurn, Message, Span

# The date that Llama's templates fall back to where they are given no clock.
DEFAULT_DATE = datetime.date(2024, 7, 26)
# Variables that rendering sets, and arguments of transformers' `apply_chat_template` that are no variables.
RESERVED = frozenset(
    (
        "messages",
        "add_generation_prompt",
        "continue_final_message",
        "strftime_now",
        "raise_exception",
        "self",
        "conversation",
        "chat_template",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "kwargs",
    )
)
ABSENT = (-1, -1)  # the place of a part that a template leaves out
Encoded = tuple[list[int], Sequence[tuple[int, int]] | None]


class PromptError(ValueError):
    """A prompt that the model cannot be given; the message says why."""


class TemplateError(PromptError):
    """Messages that the chat template refuses."""


@dataclass(frozen=True)
class RenderedPrompt:
    """The input of a model.

    `spans` has the half-open token span of each part that was asked for: None where the part is empty, or its place
    cannot be told exactly. `left_out` names the parts that the template did not put into the prompt at all. `prefill`
    is the beginning of the answer, as the template renders it; None where the assistant's turn begins with nothing.
    `control_tokens` are those that the messages write out, such as `<|im_end|>`: the model reads them as markup.
    `arguments` are the variables of the template, `suffix` is what follows the template's text. `in_thought` says
    whether the prompt ends within a thought: False, it ends after one; None, it says nothing of thoughts.
    """

    text: str
    token_ids: list[int]
    spans: dict[str, TokenSpan | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    prefill: str | None = None
    control_tokens: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    in_thought: bool | None = None


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as the renderer uses it.

    `encode` takes a text, and whether to give the character offsets of each token, and adds no special tokens; it gives
    None in place of the offsets where the tokenizer knows none. `decode` keeps special tokens. `names` are the special
    tokens by name (`bos_token`, …), which templates use, `control` the texts that are read as special tokens.
    """

    encode: Callable[[str, bool], Encoded]
    decode: Callable[[Sequence[int]], str]
    names: Mapping[str, str]
    control: frozenset[str]


class Renderer:
    """The chat template and the tokenizer of one model.

    Args:
        templates: the template, or several by name, of which `default` is used (`tool_use` where there are tools).
        vocabulary: the tokenizer.
    """

    def __init__(self, templates: str | Mapping[str, str] | None, vocabulary: Vocabulary) -> None:
        self._sources = {"default": templates} if isinstance(templates, str) else dict(templates or {})
        self._compiled: dict[str, jinja2.Template] = {}
        self._headers: dict[str, str] = {}
        self.vocabulary = vocabulary

    @classmethod
    def load(cls, directory: Path, library: str | None = None) -> Renderer:
        """Load the renderer of the model in a directory; only the tokenizer's files are read.

        Args:
            directory: the model's.
            library: `transformers` to have it load the tokenizer, which takes seconds; None: only where there is no
                `tokenizer.json`.

        Raises:
            PromptError: they are missing or damaged.
        """
        try:
            if library is None and (directory / "tokenizer.json").is_file():
                return cls(read_templates(directory), _read_vocabulary(directory))
            from transformers import AutoTokenizer

            return cls.of(AutoTokenizer.from_pretrained(directory))
        except Exception as error:  # the libraries raise kinds of their own, and bare ones
            raise PromptError(f"the tokenizer in {directory} cannot be loaded ({error})") from error

    @classmethod
    def of(cls, tokenizer: Any) -> Renderer:
        """The renderer of a tokenizer of transformers."""

        def encode(text: str, offsets: bool) -> Encoded:
            offsets = offsets and bool(tokenizer.is_fast)
            encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=offsets)
            return [int(token) for token in encoding["input_ids"]], encoding["offset_mapping"] if offsets else None

        def decode(ids: Sequence[int]) -> str:
            return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

        names = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        control = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer.chat_template, Vocabulary(encode, decode, names, frozenset(control)))

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return bool(self._sources)

    @cached_property
    def markers(self) -> ThoughtMarkers | None:
        """The markers of the model's thoughts; None for a model that does not think."""
        return ThoughtMarkers.of(self._sources.get("default", ""), lambda text: self.vocabulary.encode(text, False)[0])

    @cached_property
    def switch(self) -> str | None:
        """The variable of the chat template that switches thinking on and off; None where there is none."""
        try:
            known = meta.find_undeclared_variables(ENVIRONMENT.parse(self._sources.get("default", "")))
        except jinja2.TemplateError:  # rendering reports it
            return None
        return next((name for name in SWITCHES if name in known), None)

    def thinking(
        self,
        mode: Literal["off", "on"] | None,
        messages: Sequence[Message],
        arguments: Mapping[str, Any] | None,
        date: datetime.date | None,
    ) -> tuple[dict[str, Any], str]:
        """Return the arguments of the template and the suffix of a prompt that switch thinking on or off.

        A template with a switch does it by itself. Otherwise the prompt is made to end in a thought, or after an empty
        one. A beginning of the answer is left as it is.

        Args:
            mode: what is asked for; None: what the template does by itself.
            messages: role and content of each.
            arguments: further variables of the chat template.
            date: see `render`.

        Raises:
            TemplateError: the template refuses the messages.
        """
        given = dict(arguments or {})
        if mode is not None and self.switch is not None:
            return given | {self.switch: mode == "on"}, ""
        continued = bool(messages) and messages[-1].get("role") == "assistant"
        if mode is None or self.markers is None or continued:
            return given, ""
        family, opened = self.markers.family, self.markers.is_open(self._header(messages, given, date))
        if mode == "off":
            return given, {True: family.closing, False: "", None: family.skipped}[opened]
        # The channels of gpt-oss are the model's to choose; others are trained on prompts that open the thought.
        begins_itself = not self.markers.begin_is_optional
        return given, "" if opened or begins_itself else family.opening

    def plain(self, ids: Sequence[int]) -> str:
        """Return the text of tokens without special tokens, as servers return completions."""
        return self.vocabulary.decode([token for token in ids if token not in self._special])

    @cached_property
    def _special(self) -> frozenset[int]:
        """The ids of the special tokens."""
        encoded = (self.vocabulary.encode(token, False)[0] for token in self.vocabulary.control)
        return frozenset(ids[0] for ids in encoded if len(ids) == 1)

    def _header(self, messages: Sequence[Message], arguments: Mapping[str, Any], date: datetime.date | None) -> str:
        """Return what the template puts after the last message of others, the beginning of the answer included.

        It is taken from a conversation with a sign in place of the question, so that no question can be mistaken for
        it. Empty where the template refuses that conversation.
        """
        last = [dict(messages[-1])] if messages and messages[-1].get("role") == "assistant" else []
        key = json.dumps([last, arguments, str(date)], sort_keys=True, default=str)
        if key not in self._headers:
            sign = "".join(_signs("", last))
            asked: list[Message] = [{"role": "user", "content": sign}, *last]
            try:
                text = self._continued(asked, arguments, date)[0] if last else self._text(asked, arguments, date)
            except PromptError:
                text = ""
            self._headers[key] = text.rpartition(sign)[2] if sign in text else ""
        return self._headers[key]

    def render(
        self,
        messages: Sequence[Message],
        arguments: Mapping[str, Any] | None = None,
        date: datetime.date | None = None,
        marks: Mapping[str, Span | None] | None = None,
        *,
        continued: bool | None = None,
        suffix: str = "",
    ) -> RenderedPrompt:
        """Render messages.

        Args:
            messages: role and content of each.
            arguments: further variables of the chat template.
            date: the day that the template's clock shows, which it is also given as `date_string`; None: the clock
                shows `DEFAULT_DATE`, and a `date_string` of the template's own is left alone.
            marks: part → (message, start, end) in characters of that message's content.
            continued: whether the last message is a beginning that the model continues; None: if it is the
                assistant's. Else a new turn of the assistant begins.
            suffix: what follows the template's text, see `thinking`.

        Raises:
            TemplateError: the template refuses the messages.
            PromptError: there is no template, it may not be given these arguments, or a mark lies outside of the
                messages.
        """
        conversation = [_as_templates_read(message) for message in messages]
        arguments = dict(arguments or {})
        if not RESERVED.isdisjoint(arguments):
            raise PromptError(f"chat_template_kwargs may not set {', '.join(sorted(RESERVED & arguments.keys()))}")
        if continued is None:
            continued = bool(conversation) and conversation[-1].get("role") == "assistant"

        def text_of(changed: list[Message]) -> tuple[str, str | None]:
            if continued:
                return self._continued(changed, arguments, date)
            return self._text(changed, arguments, date) + suffix, None

        text, prefill = text_of(conversation)
        known: dict[str, Any] = {"prefill": prefill, "arguments": arguments, "suffix": suffix}
        if self.markers is not None:
            known["in_thought"] = self.markers.is_open(self._header(conversation, arguments, date) + suffix)
        present = {name: mark for name, mark in (marks or {}).items() if mark is not None}
        if present:
            _check_marks(present, conversation)
        written = "\0".join(f"{message.get('content')}{message.get('tool_calls', '')}" for message in conversation)
        control = tuple(sorted(token for token in self.vocabulary.control if token in written))
        if not present:
            return RenderedPrompt(text, self.encode(text)[0], control_tokens=control, **known)
        places, left_out = _locate(text, conversation, present, lambda changed: text_of(changed)[0])
        ids, offsets = self.encode(text, offsets=True)
        if offsets is None:
            offsets = self._decoded_offsets(ids, text)
        spans = {name: None if place is None else token_span(offsets, *place) for name, place in places.items()}
        return RenderedPrompt(text, ids, spans, left_out, control_tokens=control, **known)

    def spans_in(
        self, ids: Sequence[int], messages: Sequence[Message], marks: Mapping[str, Span | None]
    ) -> dict[str, TokenSpan | None]:
        """Find the token spans of the parts of messages in a prompt whose rendering is not known, by their text.

        The last message is searched for from the end, every other one before the message that follows it. A part that
        is not there word for word has no span.

        Args:
            ids: the prompt.
            messages: what it was rendered from.
            marks: part → (message, start, end) in characters of that message's content.

        Raises:
            PromptError: a mark lies outside of the messages.
        """
        present = {name: mark for name, mark in marks.items() if mark is not None}
        _check_marks(present, list(messages))
        text = self.vocabulary.decode(ids)
        offsets = self._decoded_offsets(ids, text)
        places: dict[int, int] = {}
        end = len(text)
        for number in range(len(messages) - 1, -1, -1):
            content = str(messages[number].get("content") or "").strip()
            at = text.rfind(content, 0, end) if content else -1
            if at >= 0:
                raw = str(messages[number]["content"])
                places[number], end = at - (len(raw) - len(raw.lstrip())), at
        return {
            name: token_span(offsets, places[number] + start, places[number] + end) if number in places else None
            for name, (number, start, end) in present.items()
        }

    def encode(self, text: str, *, offsets: bool = False) -> Encoded:
        """Token ids of a rendered text, and with `offsets` the characters that each stands for.

        Raises:
            PromptError: the text is no Unicode.
        """
        # JSON can spell half of a surrogate pair, which is no character.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError("the text holds half of a surrogate pair, which is no Unicode character")
        return self.vocabulary.encode(text, offsets)

    def _decoded_offsets(self, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
        """Characters of a text that each token stands for, by decoding ever more tokens: for tokenizers that tell none.

        Raises:
            PromptError: the tokens do not decode to the text.
        """
        if self.vocabulary.decode(ids) != text:
            raise PromptError(
                "the tokenizer of this model gives no character offsets and does not decode its tokens to the same "
                "prompt, so no position can be located; save the model with a fast tokenizer (tokenizer.json)"
            )
        ends, low = [0], 0
        for count in range(1, len(ids) + 1):
            shown = self.vocabulary.decode(ids[:count])
            # A token may hold part of a character: what is decoded then is not yet the text.
            low = next((at for at in range(low, len(shown)) if not text.startswith(shown[at], at)), len(shown))
            ends.append(low)
        return [(first, last if last > first else first + 1) for first, last in itertools.pairwise(ends)]

    def _continued(
        self, messages: list[Message], arguments: Mapping[str, Any], date: datetime.date | None
    ) -> tuple[str, str]:
        """The text up to the end of the last message's content, and that content as it is rendered."""
        content = str(messages[-1].get("content") or "")
        end = "".join(_signs("", messages))
        # As transformers does: where the space behind the mark is gone, the template trims contents.
        tagged = [*messages[:-1], messages[-1] | {"content": f"{content}{end} "}]
        text = self._text(tagged, arguments, date, generation=False)
        at = text.rfind(end)
        if at < 0:
            raise TemplateError("the chat template leaves out the beginning of the answer that the messages end with")
        before = text[:at] if text.startswith(f"{end} ", at) else text[:at].rstrip()
        for prefill in (content, content.rstrip(), content.lstrip(), content.strip()):
            if before.endswith(prefill):
                return before, prefill
        raise TemplateError("the chat template changes the beginning of the answer that the messages end with")

    def _text(
        self,
        messages: list[Message],
        arguments: Mapping[str, Any],
        date: datetime.date | None,
        *,
        generation: bool = True,
    ) -> str:
        """Render with the template.

        Raises:
            TemplateError: it refuses the messages.
            PromptError: there is no template.
        """
        name = "tool_use" if arguments.get("tools") is not None and "tool_use" in self._sources else "default"
        if name not in self._sources:
            why = f"only those named {', '.join(self._sources)}" if self._sources else "none"
            raise PromptError(f"the model has no chat template ({why} in its directory); use /v1/completions")
        day = date or DEFAULT_DATE
        variables: dict[str, Any] = {
            "tools": None,
            "documents": None,
            **({} if date is None else {"date_string": day.strftime("%d %b %Y")}),
            **self.vocabulary.names,
            **arguments,
        }
        try:
            if name not in self._compiled:
                self._compiled[name] = ENVIRONMENT.from_string(self._sources[name])
            return str(
                self._compiled[name].render(
                    variables, messages=messages, add_generation_prompt=generation, strftime_now=day.strftime
                )
            )
        except Exception as error:  # templates raise whatever their authors chose
            raise TemplateError(f"the chat template refuses these messages: {error}") from None


def read_templates(directory: Path) -> str | dict[str, str] | None:
    """The chat templates in a model's directory, found where transformers finds them.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    main, others = directory / "chat_template.jinja", directory / "additional_chat_templates"
    if main.is_file():
        templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(others.glob("*.jinja"))}
        return templates | {"default": main.read_text(encoding="utf-8")}
    kept = _json(directory / "tokenizer_config.json").get("chat_template")
    if kept is None:
        kept = _json(directory / "chat_template.json").get("chat_template")
    if isinstance(kept, list):
        return {entry["name"]: entry["template"] for entry in kept}
    return kept if kept is None or isinstance(kept, dict) else str(kept)


def _read_vocabulary(directory: Path) -> Vocabulary:
    from tokenizers import Tokenizer  # it takes 30 ms to import, where transformers takes seconds

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str, offsets: bool) -> Encoded:
        if offsets:
            encoding = tokenizer.encode(text, add_special_tokens=False)
            return encoding.ids, encoding.offsets
        return next(iter(tokenizer.encode_batch_fast([text], add_special_tokens=False))).ids, None

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    added = tokenizer.get_added_tokens_decoder().values()
    control = frozenset(token.content for token in added if token.special)
    return Vocabulary(encode, decode, _special_names(directory), control)


def _special_names(directory: Path) -> dict[str, str]:
    """Special tokens by name, as templates use them."""
    names: dict[str, str] = {}
    settings = _json(directory / "tokenizer_config.json")
    named = settings.get("model_specific_special_tokens") or settings.get("extra_special_tokens")
    for values in (_json(directory / "special_tokens_map.json"), named, settings):
        for name, value in (values if isinstance(values, dict) else {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                names[name] = text
    return names


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; in a prompt it says nothing."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment in which transformers renders templates, without its clock."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


ENVIRONMENT = _environment()


def template_arguments(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the chat template for a request: its own, and its tools."""
    tools = {"tools": request["tools"]} if request.get("tools") else {}
    return {**(request.get("chat_template_kwargs") or {}), **tools}


def _as_templates_read(message: Message) -> Message:
    """Return a copy of a message whose tool calls have their arguments as an object, as vLLM gives them to a template.

    Arguments that are no JSON object become an empty one there.
    """
    if not message.get("tool_calls"):
        return dict(message)
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"].get("arguments")
        try:
            given = json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError:
            given = None
        calls.append(call | {"function": call["function"] | {"arguments": given if isinstance(given, dict) else {}}})
    return message | {"tool_calls": calls}


def _signs(text: str, messages: list[Message]) -> tuple[str, str]:
    """Two characters of private use that a prompt does not hold, and that templates leave as they are."""
    taken = text + "".join(str(message.get("content")) for message in messages)
    free = (chr(point) for point in range(0xE000, 0xF900) if chr(point) not in taken)
    return next(free), next(free)


def _check_marks(marks: Mapping[str, Span], messages: list[Message]) -> None:
    """Check that marks lie inside of the messages.

    Raises:
        PromptError: one does not.
    """
    for name, mark in marks.items():
        number, start, end = mark
        content = messages[number].get("content") if 0 <= number < len(messages) else None
        if not isinstance(content, str) or not 0 <= start <= end <= len(content):
            raise PromptError(f"message_spans.{name} = {list(mark)} lies outside of the messages")


def _locate(
    text: str, messages: list[Message], marks: Mapping[str, Span], render: Callable[[list[Message]], str]
) -> tuple[dict[str, tuple[int, int] | None], tuple[str, ...]]:
    """The characters of a rendered text at which some parts of its messages are, and which parts it leaves out.

    The messages are rendered once more with signs at both ends of each part. If the text is the same but for the signs,
    they stand where the parts do. A template may render otherwise because of the signs (it looks at how a content
    begins, or strips the white space beside one); then the parts are tried one by one, without the white space around
    them, and with one sign in place of the whole message. Of a part that a template repeats, the last copy counts.
    """
    places: dict[str, tuple[int, int] | None] = {}
    left_out = []
    together = _signed(text, messages, marks, render)
    for name, (number, start, end) in marks.items():
        part = messages[number]["content"][start:end]
        if not part:
            places[name] = None
            continue
        inner = (number, start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip()))
        place = together.get(name)
        for mark in ((number, start, end), inner):
            if place is None and mark[1] < mark[2]:
                place = _signed(text, messages, {name: mark}, render).get(name)
        place = place or _replaced(text, messages, (number, start, end), render)
        if place == ABSENT or (place is None and part.strip() not in text):
            left_out.append(name)
        places[name] = None if place == ABSENT else place
    return places, tuple(left_out)


def _signed(
    text: str, messages: list[Message], marks: Mapping[str, Span], render: Callable[[list[Message]], str]
) -> dict[str, tuple[int, int]]:
    """Places by rendering with signs at the ends of the parts; empty where this changes anything else."""
    begin, end = _signs(text, messages)
    inserted: dict[int, list[tuple[int, str]]] = {}
    for order, (number, *places) in enumerate(marks.values()):
        inserted.setdefault(number, []).extend(
            (place, f"{begin}{order}.{side}{end}") for side, place in enumerate(places)
        )
    changed = list(messages)
    for number, signs in inserted.items():
        content = messages[number]["content"]
        for place, sign in sorted(signs, reverse=True):
            content = content[:place] + sign + content[place:]
        changed[number] = messages[number] | {"content": content}
    try:
        first, *rest = render(changed).split(begin)
    except PromptError:
        return {}
    plain, length, at = [first], len(first), dict[str, int]()
    for part in rest:
        sign, _, after = part.partition(end)
        at[sign] = length
        plain.append(after)
        length += len(after)
    if "".join(plain) != text:
        return {}
    ends = {name: (at.get(f"{order}.0"), at.get(f"{order}.1")) for order, name in enumerate(marks)}
    known = {name: (low, high) for name, (low, high) in ends.items() if low is not None and high is not None}
    return known | {name: ABSENT for name, places in ends.items() if places == (None, None)}


def _replaced(
    text: str, messages: list[Message], mark: Span, render: Callable[[list[Message]], str]
) -> tuple[int, int] | None:
    """The place of a part by rendering with a sign in place of its whole message; None where this does not tell it."""
    number, start, end = mark
    content = messages[number]["content"]
    sign = "".join(_signs(text, messages))
    try:
        signed = render([*messages[:number], messages[number] | {"content": sign}, *messages[number + 1 :]])
    except PromptError:
        return None
    if sign not in signed:
        return ABSENT if signed == text else None
    before = len(content) - len(content.lstrip())
    for shown, cut in ((content, 0), (content.strip(), before), (content.lstrip(), before), (content.rstrip(), 0)):
        if signed.replace(sign, shown) == text:
            at = len(signed[: signed.rindex(sign)].replace(sign, shown)) - cut
            low, high = max(at + start, at + cut), min(at + end, at + cut + len(shown))
            return (low, high) if low < high else None
    return None


DAY = datetime.timedelta(days=1)


def stored_spans(
    renderer: Renderer, state: AgentState
) -> tuple[dict[str, TokenSpan | None], dict[int, TokenSpan | None]]:
    """Token spans of system text, prefix and question in the prompt of a trajectory, and of the answers by turn.

    The last answer follows the prompt; the earlier ones are where the chat template puts them, without the thoughts
    that it leaves out, and with the token that ended them. Of a single conversation there are no turns.

    Its messages are rendered with the recorded date. Version 0.2 recorded none and rendered with the server's clock, so
    that the days around the start of the request are tried. If no rendering gives the stored tokens (the chat template
    is another by now), the parts are searched for in the text of the tokens.

    Raises:
        PromptError: the tokenizer cannot locate anything.
    """
    ids, messages = state.prompt_token_ids or [], state.request.get("messages") or []
    marks = {} if state.message_spans is None or not messages else state.message_spans.values()
    earlier = {f"turn{turn.number}": turn for turn in state.earlier_turns or ()}
    said: dict[int, TokenSpan | None] = {}
    for name, turn in earlier.items():
        if turn.finish_reason == CALLS:
            said[turn.number] = _found(ids, turn.completion_token_ids or [], turn.prompt_token_ids or [])
            continue
        start, end = 0 if turn.thought is None else turn.thought.answer, len(messages[turn.answer]["content"])
        marks[name] = (turn.answer, start, end) if start < end else None

    def divided(spans: dict[str, TokenSpan | None]) -> tuple[dict[str, TokenSpan | None], dict[int, TokenSpan | None]]:
        answers = {turn.number: _ended(spans.get(name), turn, ids) for name, turn in earlier.items()} | said
        if state.turn is not None:
            answers[state.turn] = (len(ids), len(ids) + len(state.completion_token_ids or []))
        return {name: span for name, span in spans.items() if name not in earlier}, answers

    arguments = template_arguments(state.request)
    # Version 0.2 closed the turn of an assistant's message that the opening ended with.
    turns = (True, False) if messages and messages[-1].get("role") == "assistant" else (False,)
    for date in _dates(state):
        for continued in turns:
            try:
                prompt = renderer.render(
                    messages, arguments, date, marks, continued=continued, suffix=state.prompt_suffix or ""
                )
            except PromptError:
                continue
            if prompt.token_ids == ids:
                return divided(prompt.spans)
    return divided(renderer.spans_in(ids, messages, marks))


def _found(ids: list[int], said: list[int], before: list[int]) -> TokenSpan | None:
    """The span of an answer with tool calls, with its last token; None where the template writes it in another way.

    The template renders such an answer from its parts. It is searched for from the place on at which its prompt and the
    last one begin to differ, which may be before its end: a template leaves out empty thoughts of earlier answers.
    """
    same = next((at for at, pair in enumerate(zip(ids, before, strict=False)) if pair[0] != pair[1]), len(before))
    for start in range(same, len(ids) - len(said) + 1):
        if said and ids[start : start + len(said)] == said:
            return start, start + len(said)
    return None


def _ended(span: TokenSpan | None, turn: EarlierTurn, ids: list[int]) -> TokenSpan | None:
    """The span of an earlier answer with its last token, where that is the one that ends a turn in the prompt too."""
    if span is None or turn.finish_reason != "stop" or not turn.completion_token_ids:
        return span
    return (span[0], span[1] + (ids[span[1] : span[1] + 1] == turn.completion_token_ids[-1:]))


def _dates(state: AgentState) -> Iterator[datetime.date | None]:
    """Dates with which the prompt may have been rendered; None stands for a template's default."""
    if state.date is not None:
        recorded = datetime.date.fromisoformat(state.date)
        yield from (None, recorded) if recorded == DEFAULT_DATE else (recorded,)
        return
    yield None
    if state.timing.started is not None:
        day = datetime.datetime.fromisoformat(state.timing.started).date()  # UTC; servers go by their zone
        yield from (day, day - DAY, day + DAY)
