"""Who solves what: agreement of the variants across samples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emoprobe.analysis.statistics import kappa
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame


def solved(table: pd.DataFrame) -> pd.DataFrame:
    """Samples × variants: 1 solved, 0 not, NaN not graded; variants in the order of the table."""
    wide = table.assign(correct=table["correct"].astype("Float64")).pivot(
        index="sample_id", columns="variant", values="correct"
    )
    return wide[list(table["variant"].unique())].astype(float)


def consistency(table: pd.DataFrame) -> pd.DataFrame:
    """Every ordered pair of variants, itself included."""
    matrix = solved(table)
    graded = matrix.dropna()
    counts = graded.sum(axis=1)
    everyone, nobody = int((counts == graded.shape[1]).sum()), int((counts == 0).sum())
    rows = []
    for variant in matrix:
        for other in matrix:
            both = matrix[[variant]].join(matrix[[other]], rsuffix="_other").dropna().to_numpy()
            first, second = both[:, 0], both[:, -1]
            rows.append(
                {
                    "variant": variant,
                    "other": other,
                    "n": len(both),
                    "agreement": float(np.mean(first == second)) if len(both) else float("nan"),
                    "kappa": kappa(first, second),
                    "gained": int(((first == 1) & (second == 0)).sum()),
                    "lost": int(((first == 0) & (second == 1)).sum()),
                    "alone": int(((counts == 1) & (graded[variant] == 1)).sum()) if variant == other else None,
                    "all_solve": everyone,
                    "none_solves": nobody,
                }
            )
    return frame(TABLES["consistency"], rows)
