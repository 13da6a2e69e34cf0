"""`judgements/{judge}/{variant}/{sample}.json`: what a model that grades was asked about an answer, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from emoprobe.results.trajectory import Attempt, Measured, Timing, Usage


class Judgement(Measured):
    """One judgement.

    `messages_sha256` is the hash of the `trajectory.jsonl` that was judged. `value` is null where there is none:
    `unusable` says why the reply holds none, or why nothing was asked, and `error` why there is no reply or no answer.
    `reason` is the judge's, `reply` its text. `quotes` says whether the answer itself holds the text of its variant, so
    that the judge could know it. `cost` is in the currency of `workers.prices`; null without a price.
    """

    judge: str
    variant: str
    sample_id: str
    model: str
    messages_sha256: str | None = None
    value: bool | float | str | None = None
    reason: str | None = None
    unusable: str | None = None
    quotes: bool = False
    reply: str | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    response: dict[str, Any] = Field(default_factory=dict)
    usage: Usage = Usage()
    cost: float | None = None
    worker_id: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    timing: Timing = Timing()


class Comparison(Judgement):
    """One judgement of a pair: an answer of a variant, and that of its reference to the same question.

    `compare_with` and `compared_id` name the reference and the folder of its answer, `compared_sha256` is the hash of
    that `trajectory.jsonl`. `orders` has what the judge was asked and said with the variant's answer as A, and with the
    reference's as A; `value` is the share of both in which the variant's is preferred, `cost` that of both, and the
    other fields of a request are empty.
    """

    compare_with: str
    compared_id: str
    compared_sha256: str | None = None
    orders: list[Judgement] = Field(default_factory=list)


def read_judgement(path: Path) -> Judgement:
    """Read a judgement, of an answer or of a pair.

    Raises:
        DamagedError: it is damaged.
    """
    made = Judgement.read_file(path)
    return Comparison.read_file(path) if "compare_with" in (made.model_extra or {}) else made
