"""What follows from the tests of a tone's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from emoprobe.analysis.conclusion import Conclusion, Reason
from emoprobe.results.statement import Verdict


class FeatureReason(Reason):
    """Reason for the verdict on the features of a tone."""

    NOT_TESTED = Verdict.NOTE, "too few texts or questions in the testing half, or no feature is active there"
    SEPARATES = Verdict.FOUND, "features differ, and separate the tone better than those of a random autoencoder"
    RANDOM_AS_WELL = Verdict.NOT_FOUND, "features differ, and those of a random autoencoder separate it as well"
    NONE_DIFFERS = Verdict.NOT_FOUND, "no feature differs on the testing half"


@dataclass(frozen=True)
class ToneConclusion(Conclusion):
    """The conclusion on a tone's features; the numbers are those of the clearest one.

    Attributes:
        clearest: the row of the table `features` with the least p-value; None where nothing was tested.
        differing: how many features differ.
        tested: how many were tested.
        separation: method → area under the curve by which one feature, chosen on the first half, separates tone and
            reference on the second; 0.5 where a method has none.
    """

    clearest: pd.Series | None = None
    differing: int = 0
    tested: int = 0
    separation: Mapping[str, float] = field(default_factory=dict)


def conclude_tone(rows: pd.DataFrame) -> ToneConclusion:
    """Return the conclusion of one tone's rows of the table `features`, those of the baselines among them."""
    tested = rows[(rows["method"] == "autoencoder") & rows["p"].notna()]
    if tested.empty:
        return ToneConclusion(FeatureReason.NOT_TESTED)
    differing = int(tested["differs"].fillna(False).sum())
    separation = dict.fromkeys(("autoencoder", "random", "pca", "diff_means"), 0.5)
    separation |= {str(method): _separation(part) for method, part in rows.groupby("method")}
    if not differing:
        reason = FeatureReason.NONE_DIFFERS
    else:
        clear = separation["autoencoder"] > separation["random"]
        reason = FeatureReason.SEPARATES if clear else FeatureReason.RANDOM_AS_WELL
    best = tested.iloc[int(tested["p"].to_numpy(dtype=float).argmin())]
    return ToneConclusion(
        reason,
        estimate=float(best["difference"]),
        low=float(best["low"]),
        high=float(best["high"]),
        p=float(best["p_tone"]),
        n=int(best["n"]),
        clearest=best,
        differing=differing,
        tested=len(tested),
        separation=separation,
    )


def _separation(rows: pd.DataFrame) -> float:
    """The area of the feature that differs most on the fitting half; of difference of means, of the better part."""
    known = rows[rows["auroc"].notna()]
    if known.empty:
        return 0.5
    if known["fitted"].notna().any():
        return float(known["auroc"].iloc[int(np.nanargmax(known["fitted"].abs().to_numpy(dtype=float)))])
    return float(known["auroc"].max())
