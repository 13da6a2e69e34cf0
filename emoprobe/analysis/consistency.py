"""Who solves what: agreement of the variants across questions, beside the agreement of a variant with itself."""

from __future__ import annotations

from itertools import combinations, islice
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.estimates import Floats
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import kappa
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame

MAX_PAIRS = 15  # pairs of draws that an agreement is the mean over, in both orders


def consistency(table: pd.DataFrame) -> pd.DataFrame:
    """Every ordered pair of variants, itself included.

    With several draws all is a mean over pairs of *different* draws, and the diagonal is the noise floor: how far a
    variant agrees with itself. Draws of one number share their seed between variants, so they are not paired.
    """
    questions = Questions(table)
    solved = questions.by_draw("correct")
    draws = solved.shape[2]
    chosen = list(islice(combinations(range(draws), 2), MAX_PAIRS))
    pairs = [*chosen, *((two, one) for one, two in chosen)] or [(0, 0)]
    first = solved[:, :, 0]
    complete = ~np.isnan(first).any(axis=0)
    counts = first[:, complete].sum(axis=0)
    rows: list[dict[str, Any]] = []
    for place, variant in enumerate(questions.names):
        for other_place, other in enumerate(questions.names):
            found = [_agreement(solved[place, :, one], solved[other_place, :, two]) for one, two in pairs]
            n, agreement, chance, gained, lost = (_mean(values) for values in zip(*found, strict=True))
            rows.append(
                {
                    "variant": variant,
                    "other": other,
                    "n": round(n),
                    "agreement": agreement,
                    "kappa": chance,
                    "gained": gained,
                    "lost": lost,
                    "alone": int(((counts == 1) & (first[place, complete] == 1)).sum()) if variant == other else None,
                    "all_solve": int((counts == len(questions.names)).sum()),
                    "none_solves": int((counts == 0).sum()),
                }
            )
    by_pair = {(row["variant"], row["other"]): row for row in rows}
    for row in rows:
        for measure in ("agreement", "kappa"):
            own = [float(by_pair[row[side], row[side]][measure]) for side in ("variant", "other")]
            row[f"own_{measure}"] = float(np.mean(own)) if draws > 1 else float("nan")
    return frame(TABLES["consistency"], rows)


def _agreement(first: Floats, second: Floats) -> tuple[float, float, float, float, float]:
    """Questions that both have, share judged alike, κ, and how many the first alone and the second alone solves."""
    both = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[both], second[both]
    n = len(first)
    return (
        float(n),
        float(np.mean(first == second)) if n else float("nan"),
        kappa(first, second),
        float(((first == 1) & (second == 0)).sum()),
        float(((first == 0) & (second == 1)).sum()),
    )


def _mean(values: tuple[float, ...]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
