"""Confounds of valence: how far what else differs between tones explains what activations differ in.

A feature such as the length of the text varies between the texts of one tone as well. Its slope is estimated there, so
that no valence enters, and what it predicts is taken out of the activations. That extrapolates as far as the valences
differ in the feature: an error of the slope then looks like valence. So the slopes only serve where tones overlap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# By how much the errors of slopes may widen the variance of the difference between valences. Where activations hold a
# confound and no valence, 5.3 % of 1,467 simulated findings are false up to here (5.7 % of 911 up to 0.05, 4.7 % of 556
# above that; 4.1 % of 537 there with d = 2,000), 9 % of 336 between here and 0.15, and 14 % of 431 between 0.15 and
# 0.25; see `tests.calibration.probe_limits`.
MOST_INFLATION = 0.1
SINGULAR = 1e-9
PUNCTUATION = re.compile(r"[^\w\s]")


def text_features(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return how many words and punctuation marks texts have, (n, 1) each, by its name."""
    return {
        "words": np.array([[float(len(text.split()))] for text in texts]),
        "punctuation": np.array([[float(len(PUNCTUATION.findall(text)))] for text in texts]),
    }


@dataclass(frozen=True)
class Confounds:
    """Features of rows, (n, k), and `solver` (k, n), whose product with activations are the slopes within variants.

    `names` are the features that are controlled; `inseparable` those that differ too much between valences.
    """

    names: list[str]
    inseparable: list[str]
    features: np.ndarray
    solver: np.ndarray

    @classmethod
    def of(cls, features: Mapping[str, np.ndarray], variant: np.ndarray, signs: np.ndarray) -> Confounds:
        """Estimate what the slopes can separate.

        Args:
            features: some columns (n, …) by the name of what they describe.
            variant: the variant of each row, from 0.
            signs: the valence of each variant, −1 or 1.
        """
        alone = {name: inflation(values, variant, signs) for name, values in features.items()}
        whole = np.column_stack([np.zeros((len(variant), 0)), *features.values()])
        inseparable = [name for name, value in alone.items() if value > MOST_INFLATION]
        if not inseparable and inflation(whole, variant, signs) > MOST_INFLATION:
            inseparable = list(features)
        scaled = whole / np.maximum(whole.std(0), SINGULAR)
        within = scaled - _means(scaled, variant, len(signs))[variant]
        return cls(list(features), inseparable, scaled - scaled.mean(0), np.linalg.pinv(within, rcond=SINGULAR**0.5))


def inflation(features: np.ndarray, variant: np.ndarray, signs: np.ndarray) -> float:
    """Return how much errors of slopes add to the variance of the difference between valences, as a share of it.

    Infinite where valences differ in what does not vary within variants.
    """
    scaled = features / np.maximum(features.std(0), SINGULAR)
    means = _means(scaled, variant, len(signs))
    apart = means[signs > 0].mean(0) - means[signs < 0].mean(0)
    spectrum, axes = np.linalg.eigh((scaled - means[variant]).T @ (scaled - means[variant]))
    kept = spectrum > SINGULAR * max(1.0, float(spectrum.max(initial=0.0)))
    along = axes.T @ apart
    if np.abs(along[~kept]).max(initial=0.0) > SINGULAR**0.5:
        return float("inf")
    rows = np.bincount(signs[variant] > 0, minlength=2)
    return float((along[kept] ** 2 / spectrum[kept]).sum() / (1 / rows).sum())


def _means(values: np.ndarray, variant: np.ndarray, count: int) -> np.ndarray:
    """Mean of each variant's rows, (count, k)."""
    members = np.eye(count)[variant]
    means: np.ndarray = members.T @ values / members.sum(0)[:, None]
    return means
