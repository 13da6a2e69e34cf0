"""Format noise: how far accuracy moves where the prompt is reformatted, and which tones move it less than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.contrasts import Contrast, contrasts_of
from emoprobe.analysis.outcomes import PRIMARY_MEASURE
from emoprobe.analysis.paired_tests import compare
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import CONTROL, is_format
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame


def format_noise(
    table: pd.DataFrame, references: Sequence[str] | None = None, weight: float | None = 1.0
) -> pd.DataFrame:
    """The table `format_noise` of the catalogue: effects of formats, and of tones against the primary reference.

    A tone lies within format noise where the upper bound of the size of its effect is below the lower bound of the size
    of a format's. All bounds hold together at 95 %: half of the level is divided over the formats, and half over the
    tones (Bonferroni), so that a tone is called so falsely in at most 5 % of experiments.

    Args:
        table: the trajectories.
        references: `analysis.references`.
        weight: share of the level that belongs to this number of questions; None: there are no bounds.
    """
    questions = Questions(table)
    formats = [Contrast(name, CONTROL, False) for name in questions.names if is_format(name)]
    if not formats or CONTROL not in questions.names:
        return frame(TABLES["format_noise"], [])
    tones = [one for one in contrasts_of(questions.names, references_of(questions.names, references)) if one.primary]
    rows = [
        *(_row(questions, one, "format", weight, len(formats)) for one in formats),
        *(_row(questions, one, "tone", weight, len(tones)) for one in tones),
    ]
    reached = max((row["least"] for row in rows if row["kind"] == "format"), default=0.0)
    for row in rows:
        row["within"] = bool(row["most"] < reached) if row["kind"] == "tone" and weight is not None else None
    return frame(TABLES["format_noise"], rows)


def _row(questions: Questions, contrast: Contrast, kind: str, weight: float | None, family: int) -> dict[str, Any]:
    level = LEVEL * (weight or 1.0) / 2 / family
    plain, _ = compare(questions, contrast, PRIMARY_MEASURE)
    bounds, _ = compare(questions, contrast, PRIMARY_MEASURE, confidence=1 - level)
    low, high = float(bounds.low), float(bounds.high)
    known = weight is not None and not np.isnan(low)
    return {
        "variant": contrast.variant,
        "reference": contrast.reference,
        "kind": kind,
        "difference": float(plain.value),
        "low": float(plain.low),
        "high": float(plain.high),
        "least": max(low, -high, 0.0) if known else 0.0,
        "most": max(-low, high) if known else 1.0,
    }
