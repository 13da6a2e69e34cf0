"""What the variants did: accuracy, and the shape of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.contrasts import references_of
from emoprobe.analysis.estimates import Estimates, difference, mean
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import holm
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame

# Column of the trajectories → how it is called. Each is tested, so none says again what another says: efficiency is a
# function of the completion tokens, and characters are the same length in another unit.
CHARACTERISTICS_OF = {
    "completion_tokens": "completion tokens",
    "steps": "reasoning steps",
    "truncated": "truncation rate",
    "compliant": "format compliance",
    "polarity": "polarity of tone (exploratory)",
    "subjectivity": "subjectivity of tone (exploratory)",
}
SHARES = frozenset({"truncated", "compliant"})
EXTRACTIONS = ("marker", "boxed", "letter", "last_number", "none")
NAN = float("nan")


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each variant, strict and lenient, with what its answers were read off and how many there are."""
    questions = Questions(table)
    strict, lenient = questions.values("correct"), questions.values("lenient")
    rows = []
    for place, name in enumerate(questions.names):
        own = table[table["variant"] == name]
        graded, failures = own["correct"].dropna(), int(own["failure"].notna().sum())
        right, known = int(graded.sum()), len(graded)
        texts = questions.texts(name)
        found, kind = (mean(values[place], texts, True, questions.groups) for values in (strict, lenient))
        rows.append(
            {
                "variant": name,
                "valence": own["valence"].iloc[0],
                "texts": questions.count(name),
                "n": known,
                "correct": right,
                "accuracy": right / known if known else NAN,
                "low": float(found.low),
                "high": float(found.high),
                "lenient": float(own["lenient"].astype("Float64").mean()) if known else NAN,
                "lenient_low": float(kind.low),
                "lenient_high": float(kind.high),
                "compliance": _share(own["compliant"]),
                "truncated": _share(own["truncated"]),
                **{way: _share((own["extraction"] == way).where(own["extraction"].notna())) for way in EXTRACTIONS},
                "failures": failures,
                "if_failures_wrong": right / (known + failures) if known + failures else NAN,
                "if_failures_right": (right + failures) / (known + failures) if known + failures else NAN,
            }
        )
    return frame(TABLES["accuracy"], rows)


def characteristics(table: pd.DataFrame, references: Sequence[str] | None = None) -> pd.DataFrame:
    """The shape and tone of each variant's answers, compared with the primary reference on the same questions.

    The primary reference is compared with the reference before it. All tests of the table are one secondary family.

    Args:
        table: the trajectories.
        references: `analysis.references`.
    """
    questions = Questions(table)
    known = references_of(questions.names, references)
    rows = []
    for measure in CHARACTERISTICS_OF:
        values = questions.values(measure)
        share = measure in SHARES
        for place, name in enumerate(questions.names):
            own, texts = values[place], questions.texts(name)
            found = mean(own, texts, share, questions.groups)
            row: dict[str, Any] = {
                "variant": name,
                "measure": measure,
                "n": int((~np.isnan(own)).sum()),
                "mean": float(found.value),
                "low": float(found.low),
                "high": float(found.high),
            }
            reference = _reference(name, known)
            if reference is not None:
                pairs = own - values[questions.row(reference)]
                row |= {"reference": reference} | _compared(
                    difference(pairs, texts, questions.texts(reference), NAN, share, questions.groups), pairs
                )
            rows.append(row)
    order = {name: place for place, name in enumerate(questions.names)}
    rows.sort(key=lambda row: order[row["variant"]])
    corrected = holm([row.get("p", NAN) for row in rows])
    return frame(
        TABLES["characteristics"], [row | {"p_holm": p} for row, p in zip(rows, corrected.tolist(), strict=True)]
    )


def _reference(name: str, references: list[str]) -> str | None:
    """What a variant is compared with: the primary reference, or the one before it for that one."""
    if name not in references:
        return references[-1] if references else None
    return references[-2] if len(references) > 1 and name == references[-1] else None


def _compared(found: Estimates, pairs: np.ndarray) -> dict[str, float]:
    known = pairs[~np.isnan(pairs)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else NAN
    return {
        "difference": float(found.value),
        "difference_low": float(found.low),
        "difference_high": float(found.high),
        "effect_size": float(found.value) / spread if spread > 0 else NAN,
        "p": float(found.p),
    }


def _share(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else NAN
