"""Render messages to the text, the token ids and the token spans that a model is given.

There is one renderer: the pool makes every prompt with it, the capture server those of its other clients, and the
checks before a run look at what it makes. It compiles the chat template itself, in the same sandbox as transformers,
because a template's clock must show a fixed date and no library may be patched for that.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2 import meta

from emoprobe.config.science.generation import SWITCHES
from emoprobe.conversations.places import locate, unused_signs
from emoprobe.conversations.templates import ENVIRONMENT, Encoded, Vocabulary, read_templates, read_vocabulary
from emoprobe.conversations.thoughts import ThoughtMarkers
from emoprobe.models.positions import token_span
from emoprobe.results.activation_folder import TokenSpan
from emoprobe.results.trajectory import Message, Span

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
                return cls(read_templates(directory), read_vocabulary(directory))
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
            sign = "".join(unused_signs("", last))
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

        def text_or_none(changed: list[Message]) -> str | None:
            try:
                return text_of(changed)[0]
            except PromptError:
                return None

        places, left_out = locate(text, conversation, present, text_or_none)
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
        end = "".join(unused_signs("", messages))
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
