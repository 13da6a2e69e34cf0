"""The values of both sides of a contrast, question by question."""

from __future__ import annotations

from emoprobe.analysis.contrasts import Contrast
from emoprobe.analysis.estimates import Floats
from emoprobe.analysis.outcomes import Outcome
from emoprobe.analysis.questions import Questions


def rows_of(questions: Questions, contrast: Contrast, outcome: Outcome) -> list[int]:
    """Return the rows of the variants of both sides that have values."""
    names = (*contrast.variants, *contrast.references)
    return [questions.row(name) for name in names if name != outcome.against]


def values_of_sides(
    questions: Questions,
    contrast: Contrast,
    measure: str,
    missing: tuple[float, float] | None,
    asks: int,
    against: str | None = None,
) -> tuple[Floats, Floats]:
    """Return the values of both sides, each the mean of its variants.

    Args:
        questions: the trajectories.
        contrast: the sides.
        measure: a measure of the outcome.
        missing: values of what is missing on either side; None: it stays so.
        asks: observations of each question.
        against: reference that answers are compared with in pairs, which is preferred where the other one is not; None:
            answers are graded alone.
    """

    def side(names: tuple[str, ...], value: float | None) -> Floats:
        rows = [questions.row(name) for name in names]
        values: Floats = questions.values(measure, value, asks)[rows].mean(axis=0)
        return values

    first, second = missing or (None, None)
    if against is not None and contrast.references == (against,):
        ours = side(contrast.variants, first)
        return ours, 1.0 - ours
    theirs = side(contrast.references, second)
    return (1.0 - theirs if against is not None else side(contrast.variants, first)), theirs
