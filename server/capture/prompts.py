"""Text and tokens: chat templates, where the parts of a conversation lie in them, and incremental decoding."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from emoprobe.models.positions import token_span
from emoprobe.results.activation_folder import TokenSpans
from emoprobe.results.trajectory import Message

# What a request may not set of the call itself: a template of its own, say, could run for ever.
CALL = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"tools", "documents"}


class PromptError(ValueError):
    """A prompt that the model cannot be given; the message says why."""


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the spans of the parts that are known."""

    token_ids: list[int]
    spans: TokenSpans


class Tokens:
    """A tokenizer with its chat template, for a model that holds `max_length` tokens."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        # No text longer than this fits. Twice, as normalisation may shorten a text before it is cut into tokens.
        self._max_characters = 2 * max_length * max(map(len, tokenizer.get_vocab()))
        self.eos_ids: frozenset[int] = frozenset(
            [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        )

    def with_eos(self, ids: Any) -> None:
        """Add the end-of-sequence ids of the model's generation config."""
        more = [] if ids is None else [ids] if isinstance(ids, int) else ids
        self.eos_ids = self.eos_ids | frozenset(int(token) for token in more)

    @property
    def size(self) -> int:
        """Number of token ids."""
        return len(self._tokenizer)

    def name(self, token: int) -> str | None:
        """The name of a token; None where the tokenizer has no such id."""
        name = self._tokenizer.convert_ids_to_tokens(token) if token < self.size else None
        return None if name is None else str(name)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds by itself.

        Raises:
            PromptError: the text is no Unicode, or far longer than the model's context.
        """
        self._check(text)
        return [int(token) for token in self._tokenizer(text)["input_ids"]]

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """Text of token ids."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=not special))

    def chat(
        self,
        messages: list[Message],
        template: dict[str, Any],
        marks: dict[str, tuple[int, int, int] | None] | None = None,
    ) -> Prompt:
        """Render messages with the chat template.

        Args:
            messages: role and content of each.
            template: further arguments of the chat template.
            marks: name → (message, start, end) in characters of that message's content.

        Raises:
            PromptError: there is no chat template, it refuses the messages, or a mark lies outside of them.
        """
        if not CALL.isdisjoint(template):
            raise PromptError(f"chat_template_kwargs may not set {', '.join(sorted(CALL & template.keys()))}")
        if not self._tokenizer.chat_template:
            raise PromptError("the model has no chat template; use /v1/completions")
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)
        except Exception as error:  # templates raise whatever their authors chose
            raise PromptError(f"the chat template refuses these messages: {error}") from None
        self._check(text)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=bool(marks))
        ids = [int(token) for token in encoded["input_ids"]]
        found = self._spans(text, messages, marks, encoded["offset_mapping"]) if marks else {}
        spans = TokenSpans(**found, response=(len(ids), len(ids)))
        return Prompt(ids, spans)

    def _check(self, text: str) -> None:
        """Refuse what cannot be tokenized, or would take long to be found too long."""
        if len(text) > self._max_characters:
            raise PromptError(f"the text has {len(text)} characters, more than the model's context can hold")
        # JSON can spell half of a surrogate pair, which is no character.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError("the text holds half of a surrogate pair, which is no Unicode character")

    @staticmethod
    def _spans(text: str, messages: list[Message], marks: Any, offsets: Any) -> dict[str, tuple[int, int] | None]:
        places, cursor = [], 0
        for message in messages:
            content = message["content"]
            at = text.find(content, cursor)
            shift = 0
            if at < 0:  # many templates strip white space around a content
                shift = len(content) - len(content.lstrip())
                at = text.find(content.strip(), cursor)
            places.append(at - shift if at >= 0 else None)
            cursor = max(cursor, at)
        found = {}
        for name, mark in marks.items():
            if mark is None:
                continue
            number, start, end = mark
            if not 0 <= number < len(messages) or not 0 <= start <= end <= len(messages[number]["content"]):
                raise PromptError(f"message_spans.{name} = {list(mark)} lies outside of the messages")
            place = places[number]
            found[name] = None if place is None else token_span(offsets, place + start, place + end)
        return found


class Decoder:
    """Turns tokens into text as they come, without cutting a character in two, and looks out for stop strings."""

    def __init__(self, tokens: Tokens, stop: list[str]) -> None:
        self._tokens, self._stop = tokens, stop
        self._hold = max((len(text) for text in stop), default=1) - 1
        self._ids: list[int] = []
        self._shown = self._read = self._given = 0
        self.text = ""
        self.stopped = False

    def add(self, token: int, *, final: bool = False) -> None:
        """Take one more token; afterwards `text` holds what is complete and `stopped` whether a stop string came."""
        self._ids.append(token)
        # Byte-level tokenizers join neighbours, so the tokens before the new one are decoded with it.
        before = self._tokens.decode(self._ids[self._shown : self._read])
        after = self._tokens.decode(self._ids[self._shown :])
        if after.endswith("\ufffd") and not final:
            return
        old = len(self.text)
        self.text += after[len(before) :]
        self._shown, self._read = self._read, len(self._ids)
        for stop in self._stop:
            at = self.text.find(stop, max(0, old - len(stop)))
            if at >= 0:
                self.text, self.stopped = self.text[:at], True

    def delta(self, *, final: bool = False) -> str:
        """What is new since the last call; holds back what may become a stop string."""
        end = len(self.text) if final or self.stopped else max(self._given, len(self.text) - self._hold)
        part, self._given = self.text[self._given : end], end
        return part
