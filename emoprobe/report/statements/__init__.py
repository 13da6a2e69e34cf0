"""The sentences of a report: each phrases a conclusion or a limit of the analysis and decides nothing itself."""

from __future__ import annotations

from emoprobe.analysis.conclusion import Conclusion
from emoprobe.results.statement import Statement


def stated(about: str, conclusion: Conclusion, text: str, digits: int | None = None) -> Statement:
    """Return the statement that phrases a conclusion, its numbers rounded to so many decimal places, if any."""
    numbers = conclusion.numbers
    if digits is not None:
        numbers = {name: None if value is None else round(value, digits) for name, value in numbers.items()}
    return Statement.model_validate({"about": about, "verdict": conclusion.verdict, "text": text, **numbers})


def amount(value: float, unit: str) -> str:
    """Return a difference of a number with three digits, and of shares and of p(gold) in percentage points.

    Args:
        value: the difference.
        unit: of the outcome, as `emoprobe.analysis.outcomes.unit_of` returns it; empty for a number.
    """
    return points(value) if unit else f"{value + 0.0:+.3g}"


def points(value: float, sign: bool = True) -> str:
    """Return a difference of accuracies in percentage points."""
    # Adding 0 turns -0.0 into 0.0.
    rounded = round(100 * value, 1) + 0.0
    return f"{rounded:+.1f}" if sign else f"{rounded:.1f}"
