"""Text and tokens: chat templates, where the parts of a conversation lie in them, and incremental decoding."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.results.activation_folder import TokenSpans
from emoprobe.results.trajectory import Message


@dataclass(frozen=True)
class TokenizedPrompt:
    """Token ids, and the spans of the parts that are known."""

    token_ids: list[int]
    spans: TokenSpans


class PromptTokenizer:
    """A tokenizer with its chat template, for a model that holds `max_length` tokens."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self.renderer = Renderer.of(tokenizer)
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
        marks: Mapping[str, tuple[int, int, int] | None] | None = None,
        date: datetime.date | None = None,
        *,
        continued: bool = False,
    ) -> TokenizedPrompt:
        """Render messages with the chat template.

        Args:
            messages: role and content of each.
            template: further arguments of the chat template.
            marks: name → (message, start, end) in characters of that message's content.
            date: the day that the template takes for today, see `Renderer.render`.
            continued: whether the last message is the beginning of the answer.

        Raises:
            PromptError: there is no chat template, it refuses the messages or leaves out a part of them on which
                positions depend, or a mark lies outside of them.
        """
        self._check("".join(str(message.get("content")) for message in messages))
        rendered = self.renderer.render(messages, template, date, marks, continued=continued)
        for name in ("prefix", "question"):
            if name in rendered.left_out and marks is not None and (mark := marks[name]) is not None:
                raise PromptError(
                    f"message_spans.{name} = {list(mark)}: the chat template leaves this text out of the prompt, so "
                    f"the model never sees it (role {messages[mark[0]].get('role')!r})"
                )
        self._check(rendered.text)
        end = len(rendered.token_ids)
        return TokenizedPrompt(rendered.token_ids, TokenSpans(**rendered.spans, response=(end, end)))

    def _check(self, text: str) -> None:
        """Refuse what cannot be tokenized, or would take long to be found too long."""
        if len(text) > self._max_characters:
            raise PromptError(f"the text has {len(text)} characters, more than the model's context can hold")
        # JSON can spell half of a surrogate pair, which is no character.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError("the text holds half of a surrogate pair, which is no Unicode character")


class Decoder:
    """Turns tokens into text as they come, without cutting a character in two, and looks out for stop strings."""

    def __init__(self, tokens: PromptTokenizer, stop: list[str]) -> None:
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
        """Return the text since the last call, except what may become a stop string."""
        end = len(self.text) if final or self.stopped else max(self._given, len(self.text) - self._hold)
        part, self._given = self.text[self._given : end], end
        return part
