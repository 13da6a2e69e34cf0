"""The graders: what each measures of an answer.

A grader is a function of an answer and of its settings in the config, which returns a value: true or false, a number,
or a category; None where there is none. With the decorator `grader` it is in `GRADERS`. Its value becomes the column
`outcome_LABEL` of the table of trajectories. Two graders of every version, `number` and `logprob`, return columns with
names of their own.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from emoprobe.config.science.graders import (
    ChoiceGrader,
    Entry,
    FunctionGrader,
    LogprobGrader,
    ScorerGrader,
    TextGrader,
    label_of,
)
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.config.science.outcome_grader import OutcomeGrader, Value
from emoprobe.functions import load_function, raised_by
from emoprobe.graders import grading, lexical, texts
from emoprobe.graders.answers import LETTERS, is_letter

# Beginnings of the columns that say what came of a judgement.
JUDGED, QUOTES, ORDERS = "judged_", "quotes_", "orders_"
OUTCOME_PREFIX = "outcome_"  # beginning of the columns of graders that the catalogue does not know by name
Columns = dict[str, Any]


class GraderError(ValueError):
    """Raised for a grader that cannot be imported, raised, or returned a value of another type."""


@dataclass(frozen=True)
class Answer:
    """What graders read.

    Attributes:
        completion: text of the answer, after the thought where there is one, with the beginning that was given.
        given: characters of it that were given to the model (`prefill`).
        gold: gold answer in canonical notation; None where it is not known.
        finished: whether the model ended by itself.
        choices: options of a multiple-choice question.
        recorded: whether the folder says that the answer is correct; counts where the gold answer is not known.
        scored: whether that counts in any case, as another tool scored the answer.
        log_p_gold: log p(gold) in nats, by the model; None where it was not measured.
        log_p_options: form and log-likelihood in nats of each option, by the model; None where they were not measured.
        question: question, with its options.
        sample_id: sample.
        judgements: label of a judge → its value; without those that gave none.
    """

    completion: str
    gold: str | None
    finished: bool = True
    choices: list[str] | None = None
    recorded: bool | None = None
    scored: bool = False
    given: int = 0
    log_p_gold: float | None = None
    log_p_options: list[tuple[str, float]] | None = None
    question: str | None = None
    sample_id: str | None = None
    judgements: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """What the model said, without the beginning that it was given, which may be the variant's."""
        return self.completion[self.given :]


Grade = Callable[[Answer, Any], Any]
GRADERS: dict[str, Grade] = {}


def grader(function: Grade) -> Grade:
    """Register a function as the grader of its name."""
    GRADERS[function.__name__] = function
    return function


@grader
def number(answer: Answer, settings: None) -> Columns:
    """Whether the final answer, a number or the letter of an option, equals the gold answer."""
    if answer.gold is None or answer.scored:
        letters = answer.gold is not None and is_letter(answer.gold)
        read = grading.extract(answer.completion, letters=letters, choices=answer.choices)
        return {
            "extracted": read.notation,
            "correct": answer.recorded,
            "lenient": answer.recorded,
            "extraction": read.extraction,
            "compliant": grading.is_compliant(answer.completion, letters=letters, choices=answer.choices),
        }
    grade = grading.grade(answer.completion, answer.gold, finished=answer.finished, choices=answer.choices)
    return {
        "extracted": grade.answer,
        "correct": grade.correct,
        "lenient": grade.lenient,
        "extraction": grade.extraction,
        "compliant": grade.compliant,
    }


@grader
def logprob(answer: Answer, settings: LogprobGrader | None) -> Columns:
    """Probability of the gold answer, after the prompt or the thought, and its logarithm."""
    log_p = answer.log_p_gold
    return {"p_gold": None if log_p is None else math.exp(log_p), "log_p_gold": log_p}


@grader
def choice(answer: Answer, settings: ChoiceGrader) -> bool | None:
    """Whether the gold option has the largest log-likelihood; of equal ones the first counts, as in numpy's argmax."""
    if answer.log_p_options is None or answer.gold is None or not is_letter(answer.gold):
        return None
    scores = [log_p / _length(form.strip(), settings.normalise) for form, log_p in answer.log_p_options]
    return LETTERS[scores.index(max(scores))] == answer.gold


def _length(text: str, normalise: str) -> int:
    return {"none": 1, "characters": len(text), "bytes": len(text.encode())}[normalise]


@grader
def text(answer: Answer, settings: TextGrader) -> bool | None:
    """Whether the answer equals, contains or matches a pattern or, without one, the gold answer."""
    patterns = settings.patterns or ([] if answer.gold is None else [answer.gold])
    if not patterns:
        return None
    normalise = settings.normalise or ("none" if settings.match == "regex" else "plain")
    return texts.matches(grading.visible(answer.said), patterns, settings.match, normalise)


@grader
def refusal(answer: Answer, settings: OutcomeGrader | None) -> bool:
    """Whether the answer holds a phrase of a refusal."""
    return lexical.has_phrase("refusal", grading.visible(answer.said))


@grader
def apology(answer: Answer, settings: OutcomeGrader | None) -> bool:
    """Whether the answer holds a phrase of an apology."""
    return lexical.has_phrase("apology", grading.visible(answer.said))


@grader
def hedging(answer: Answer, settings: OutcomeGrader | None) -> bool:
    """Whether the answer holds a phrase that hedges."""
    return lexical.has_phrase("hedging", grading.visible(answer.said))


@grader
def self_correction(answer: Answer, settings: OutcomeGrader | None) -> bool:
    """Whether the answer holds a phrase that corrects itself."""
    return lexical.has_phrase("self_correction", grading.visible(answer.said))


@grader
def sentiment(answer: Answer, settings: OutcomeGrader | None) -> float:
    """Polarity of the words, in [-1, 1]."""
    return lexical.tone(grading.visible(answer.said)).polarity


@grader
def function(answer: Answer, settings: FunctionGrader) -> Any:
    """Value of a function of the user."""
    return _loaded(settings.outcome, settings.function)(answer)


@grader
def scorer(answer: Answer, settings: ScorerGrader) -> Any:
    """Value of a scorer of Inspect AI."""
    from emoprobe.graders import inspect_scorers

    arguments = json.dumps(settings.arguments, sort_keys=True)
    return inspect_scorers.score(_scorer(settings.outcome, settings.scorer, arguments), answer, settings.type)


@cache
def _scorer(label: str, reference: str, arguments: str) -> Any:
    """Build the scorer of some arguments, as JSON, once for all answers."""
    return _loaded(label, reference)(**json.loads(arguments))


@grader
def judge(answer: Answer, settings: JudgeGrader) -> Any:
    """Value of a judge, which was asked once."""
    return answer.judgements.get(settings.outcome)


def _loaded(label: str, reference: str) -> Callable[..., Any]:
    return load_function(f"graders.{label}", reference, GraderError)


NUMBER_COLUMNS = ("extracted", "correct", "lenient", "extraction", "compliant")
DTYPES = {"binary": "boolean", "number": "Float64", "category": "string", "preference": "Float64"}


def column_of(entry: Entry) -> str:
    """Return the column with the value of an entry of `graders`."""
    return {"number": "correct", "logprob": "p_gold"}.get(label_of(entry), OUTCOME_PREFIX + label_of(entry))


def outcome_columns(graders: Sequence[Entry]) -> dict[str, str]:
    """Return the columns that the catalogue does not know by name, each with its pandas type."""
    columns = {column_of(entry): DTYPES[entry.type] for entry in graders if isinstance(entry, OutcomeGrader)}
    for entry in graders:
        if isinstance(entry, JudgeGrader):
            columns |= {JUDGED + entry.outcome: DTYPES["category"], QUOTES + entry.outcome: DTYPES["binary"]}
            columns |= {ORDERS + entry.outcome: DTYPES["category"]} if entry.compare_with is not None else {}
    return columns


def graded(answer: Answer, graders: Sequence[Entry]) -> Columns:
    """Return the columns of the graders of an experiment, and those of `number` and `logprob` in any case.

    Raises:
        GraderError: a function of the user failed; the message names grader and sample.
    """
    columns: Columns = number(answer, None) if "number" in graders else dict.fromkeys(NUMBER_COLUMNS)
    columns |= logprob(answer, None)
    for entry in graders:
        if isinstance(entry, OutcomeGrader):
            columns[column_of(entry)] = _value(answer, entry)
    return columns


def _value(answer: Answer, entry: OutcomeGrader) -> Any:
    where = f"graders.{entry.outcome}, sample {answer.sample_id}"
    try:
        value = GRADERS[entry.name](answer, entry)
    except GraderError:
        raise
    except Exception as error:
        raise GraderError(raised_by(where, entry.reference or entry.name, error)) from error
    return _typed(value, entry, where)


def _typed(value: Any, entry: OutcomeGrader, where: str) -> Any:
    """Return a value as its type wants it.

    Raises:
        GraderError: it is of another type.
    """
    if hasattr(value, "item"):  # of numpy
        with contextlib.suppress(ValueError, TypeError):  # several values, which the error below shows
            value = value.item()
    limits = entry.values_in
    number = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (limits is None or limits[0] <= value <= limits[1])
    )
    fits: dict[Value, bool] = {
        "binary": isinstance(value, bool),
        "number": number,
        "category": isinstance(value, str) and value in entry.names,
        "preference": number,
    }
    if value is None or fits[entry.type]:
        return value
    finite = "a finite number" + ("" if limits is None else f" from {limits[0]:g} to {limits[1]:g}")
    wanted: dict[Value, str] = {
        "binary": "True or False",
        "number": finite,
        "preference": finite,
        "category": "one of " + ", ".join(entry.names),
    }
    raise GraderError(
        f"{where}: {entry.reference or entry.name} returned {value!r:.80}, not {wanted[entry.type]}; change the "
        "function, or value in graders"
    )
