"""Write conversations of other tools as a folder that `emoprobe analyze` takes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emoprobe.config.section import CONTROL
from emoprobe.exchange.conversation import RECORD, RECORDED, Conversation, ExchangeError, recorded_correctness
from emoprobe.exchange.names import Names
from emoprobe.graders.answers import canonical, gold_letter, gold_number, is_letter
from emoprobe.results import atomic
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.trajectory import (
    MESSAGES,
    OUTCOME,
    STATE,
    AgentState,
    AnswerRecord,
    Hashes,
    Message,
    Metrics,
    SampleData,
    SampleFile,
    Timing,
    Usage,
    message_lines,
    message_text,
)  # fmt: skip
from emoprobe.text import half_surrogate


@dataclass(frozen=True)
class FieldMapping:
    """Which fields of a conversation become what.

    Attributes:
        variant: field whose value names the variant; None: variants follow from `prefixes`.
        prefixes: variant → text with which one of its system or user messages begins. A conversation without any of
            the texts is of `control`.
        reference: value of the variant that becomes `control`, with which the others are compared.
        id: field that identifies the question; None: the tool's id, or what the user said if it has none.
        gold: field of the gold answer; None: the tool's.
        group: field of the question's group; None: the tool's.
        score: name of the score that says what is correct; None: the first one that can.
        regrade: grade the completions again and do not keep the recorded scores as grades.
    """

    variant: str | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    id: str | None = None
    gold: str | None = None
    group: str | None = None
    score: str | None = None
    regrade: bool = False


@dataclass(frozen=True)
class Imported:
    """What an import wrote: conversations of each variant, by folder name, and the number of samples."""

    variants: dict[str, int]
    samples: int


def import_conversations(
    conversations: Iterable[Conversation], folder: Path, mapping: FieldMapping, source: str
) -> Imported:
    """Write conversations into a new folder: all of them, or none after an error.

    Args:
        conversations: read one at a time, so that a log of any size fits into memory.
        folder: to write; it must not exist, or be empty.
        mapping: which fields become what.
        source: name of the tool that recorded the scores.

    Raises:
        ExchangeError: a conversation cannot be used, there is none, or the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExchangeError(f"{folder} exists and is not empty; choose another --output")
    with atomic.directory(folder, durable=False) as temporary:
        writer = _Writer(Layout(temporary), folder.absolute().name, mapping, source)
        for conversation in conversations:
            writer.write(conversation)
        return writer.finish()


class _Writer:
    def __init__(self, layout: Layout, experiment: str, mapping: FieldMapping, source: str) -> None:
        self._layout, self._experiment, self._mapping, self._source = layout, experiment, mapping, source
        self._variants, self._samples = Names("variant"), Names("sample")
        self._originals: dict[str, str] = {}
        self._valences: dict[str, str | None] = {}
        self._golds: dict[str, Any] = {}
        self._draws: dict[tuple[str, str], set[int]] = {}
        self._count: Counter[str] = Counter()
        self._models: dict[str, None] = {}
        if mapping.reference is not None:
            self._variants.name(mapping.reference, CONTROL)

    def write(self, one: Conversation) -> None:
        """Write the files of a conversation."""
        one = Conversation(**{known.name: _finite(getattr(one, known.name)) for known in fields(one)})
        if not one.messages:
            raise ExchangeError(f"{one.where}: there are no messages")
        value, prefix = self._variant(one)
        variant = self._variants.name(value, value)
        self._originals[variant] = value
        self._valences[variant] = one.described.get("valence")
        asked = _asked(one.messages[: one.opening], prefix)
        question = one.question or (asked[-1] if asked else "")
        original = one.id if self._mapping.id is None else one.value(self._mapping.id, "--id")
        if original is None and self._mapping.id is not None:
            raise ExchangeError(f"{one.where}: the field {self._mapping.id!r} is empty; choose another --id")
        # Without an id all that the user said tells questions apart: many conversations end in the same words.
        identity = "\0".join(asked if one.question is None else [one.question])
        digest = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()
        original = None if original is None else str(original)
        sample = self._samples.name(digest if original is None else ("id", original), original)
        correctness = self._correctness(one)
        gold = self._gold(one, scored=correctness is not None and not self._mapping.regrade)
        if gold is None and correctness is None and one.failure is None:
            raise ExchangeError(
                f"{one.where}: there is neither a gold answer that can be graded (a number or a letter) nor a score; "
                f"name a field with --gold or --score"
            )
        draws = self._draws.setdefault((variant, sample), set())
        # Draws count from 1; some tools count from 0.
        draw = one.draw if one.draw and one.draw not in draws else max(draws, default=0) + 1
        draws.add(draw)
        self._count[variant] += 1
        self._models |= {} if one.model is None else {one.model: None}
        self._write_files(one, variant, sample, draw, question, gold, correctness, original)

    def _write_files(
        self,
        one: Conversation,
        variant: str,
        sample: str,
        draw: int,
        question: str,
        gold: Any,
        correctness: float | None,
        original: str | None,
    ) -> None:
        name = draw_id(sample, draw)
        group = one.group if self._mapping.group is None else one.value(self._mapping.group, "--group")
        scores = {"scores": dict(one.scores)} if one.scores else {}
        kept = correctness is not None and not self._mapping.regrade and one.record is None
        outcome = AnswerRecord.model_validate(
            {
                "sample_data": SampleData(question=question, answer=gold, sample_id=sample),
                "sample_id": name,
                "variant": variant,
                "metrics": Metrics(correctness=correctness),
                "processing_time": one.seconds,
                **({"scored_by": self._source} if kept else {}),
                **scores,
                **one.described,
            }
        )
        record = {key: value for key, value in (one.record or {}).items() if key in RECORDED}
        seed = (one.record or {}).get("seed")
        request = {"model": one.model, "messages": one.messages[: one.opening], **one.request}
        try:
            state = AgentState(
                experiment=self._experiment,
                variant=variant,
                sample_id=name,
                backend=self._source,
                request=request if seed is None else {**request, "seed": seed},
                finish_reason=one.finish_reason,
                usage=Usage.model_validate(dict(one.usage)),
                timing=Timing(started=one.started, seconds=one.seconds),
                error=one.failure,
                **record,
            )
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise ExchangeError(f"{one.where}: metadata.{RECORD} cannot be used ({problem})") from None
        pair, messages = self._layout.pair(variant, name), message_lines(one.messages)
        if one.record is not None:  # with hashes, by which the answers of earlier turns count as the model's
            state = state.model_copy(update={"hashes": Hashes(messages=hashlib.sha256(messages.encode()).hexdigest())})
        texts = {MESSAGES: messages, OUTCOME: atomic.to_json(outcome.values())}
        texts[STATE] = atomic.to_json(state.values(), indent=None)
        if sample not in self._golds:
            self._golds[sample] = gold
            source = {"id": original, "of": self._source}
            described = SampleFile(
                sample_id=sample,
                question=question,
                answer=gold,
                source=source,
                group=None if group is None else str(group),
                choices=one.choices,
            )
            _write(self._layout.sample(sample), atomic.to_json(described.values()), one.where)
        elif self._golds[sample] != gold:
            raise ExchangeError(
                f"{one.where}: the gold answer of {original or sample} is {gold!r:.60}, and was "
                f"{self._golds[sample]!r:.60} in another conversation, so that the ids are not those of questions; "
                f"choose --id"
            )
        for file, text in texts.items():
            _write(pair / file, text, one.where)

    def _variant(self, one: Conversation) -> tuple[str, str]:
        """Return the value that names the variant, and the text that it puts before the question."""
        if self._mapping.variant is not None:
            value = one.value(self._mapping.variant, "--variant")
            if isinstance(value, Mapping | list):
                raise ExchangeError(
                    f"{one.where}: {self._mapping.variant} is no single value; choose another --variant"
                )
            return ("none" if value is None else str(value)), ""
        texts = [message_text(message) for message in one.messages[: one.opening] if message["role"] != "assistant"]
        prefixes = sorted(self._mapping.prefixes.items(), key=lambda entry: -len(entry[1]))
        for name, prefix in prefixes:
            if any(text.startswith(prefix) for text in texts):
                return name, prefix
        return CONTROL, ""

    def _gold(self, one: Conversation, scored: bool) -> str | None:
        """Return the gold answer in canonical notation; text that no grader reads is kept where a score counts."""
        gold = one.gold if self._mapping.gold is None else one.value(self._mapping.gold, "--gold")
        if one.choices and (letter := gold_letter(gold, one.choices)) is not None:
            return letter
        if isinstance(gold, str) and is_letter(gold.strip()):
            return gold.strip()
        number = gold_number(gold)
        if number is not None:
            return canonical(number)
        return str(gold) if gold is not None and scored else None

    def _correctness(self, one: Conversation) -> float | None:
        if self._mapping.score is not None:
            if self._mapping.score not in one.scores:
                names = ", ".join(one.scores) or "none"
                raise ExchangeError(f"{one.where}: there is no score {self._mapping.score!r} (scores there: {names})")
            return recorded_correctness(one.scores[self._mapping.score])
        values = (recorded_correctness(value) for value in one.scores.values())
        return next((value for value in values if value is not None), None)

    def finish(self) -> Imported:
        """Write what is known of the whole, and return what was imported."""
        if not self._count:
            raise ExchangeError("there are no conversations in what was given")
        there = ", ".join(sorted(set(self._originals.values())))
        if self._mapping.reference is not None and CONTROL not in self._count:
            raise ExchangeError(
                f"no conversation has the variant {self._mapping.reference!r} of --reference (there: {there})"
            )
        missing = [name for name in self._mapping.prefixes if name not in self._originals.values()]
        if missing:
            raise ExchangeError(f"no message begins with the text of --prefix {missing[0]} (variants there: {there})")
        values = {
            "experiment_name": self._experiment,
            "model": {"id": ", ".join(self._models) or None},
            "imported": {"from": self._source, "variants": self._originals},
        }
        _write(self._layout.metadata, atomic.to_json(values), "metadata")
        if CONTROL in self._count and any(self._valences.values()):  # JSON is YAML; a config needs the variant control
            variants = {name: {"valence": valence} for name, valence in self._valences.items()}
            _write(self._layout.resolved_yaml, atomic.to_json({"variants": variants}), "variants")
        return Imported(dict(self._count), len(self._golds))


def _write(path: Path, text: str, where: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if half_surrogate(text) is not None:
        raise ExchangeError(f"{where}: half a surrogate pair, which no UTF-8 file can hold; repair or remove the text")
    path.write_text(text, encoding="utf-8", newline="\n")


def _finite(value: Any) -> Any:
    """Return a value with None in place of NaN and infinities, which JSON cannot hold: none of them is a result."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


def _asked(opening: list[Message], prefix: str) -> list[str]:
    """Return the user's messages before the completion, without the text of the variant."""
    texts = (message_text(message) for message in opening if message["role"] == "user")
    return [text.removeprefix(prefix).strip() for text in texts]
