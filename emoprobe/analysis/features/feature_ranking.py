"""Which features are put up for a test: those that differ most clearly between a tone and its reference.

What is compared is a feature's mean activation over the tokens of the question, or of the response, of a trajectory.
The prefix's own tokens are left out: they are other words, so nearly any feature differs there. Tone and reference are
paired by question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.estimates import Floats

# Rows of one question with their means of features: places in the table, part → (rows, width), NaN without tokens.
Block = tuple[npt.NDArray[np.int64], dict[str, Floats]]


@dataclass(frozen=True)
class FeatureCandidate:
    """A feature that is put up for a test: of which tone, over which part, and how it differed on the fitting half."""

    variant: str
    part: str
    feature: int
    rank: int
    fitted: float


@dataclass
class Sums:
    """Paired differences of one tone over one part, for each feature, summed up question by question.

    `gaps` and `squares` are (width,), over `count` questions; `by_text` maps a text of the tone to how many questions
    it has and the sum over them. `values` is (2, width): sum and sum of squares over `rows` single values of the two.
    """

    gaps: Floats
    squares: Floats
    values: Floats
    count: int = 0
    rows: int = 0
    by_text: dict[int, tuple[int, Floats]] = field(default_factory=dict)

    def add(self, ours: Floats, theirs: Floats, text: int) -> None:
        """Take in one question: values (draws, width) of tone and reference, and the number of the tone's text."""
        gap = ours.mean(axis=0) - theirs.mean(axis=0)
        both = np.concatenate([ours, theirs])
        self.gaps, self.squares, self.count = self.gaps + gap, self.squares + gap**2, self.count + 1
        self.values, self.rows = (
            self.values + np.stack([both.sum(axis=0), (both**2).sum(axis=0)]),
            self.rows + len(both),
        )
        count, total = self.by_text.get(text, (0, np.zeros_like(gap)))
        self.by_text[text] = count + 1, total + gap

    @property
    def mean(self) -> Floats:
        """(width,): the mean difference."""
        found: Floats = self.gaps / max(self.count, 1)
        return found

    def score(self) -> Floats:
        """(width,): how clearly each feature differs, signed; 0 where it does not vary.

        The mean difference over its standard error plus the median standard error of all features, all in standard
        deviations of the feature: the second term keeps those from the top that only happen to vary little (Tusher,
        Tibshirani & Chu 2001). The error is that over the tone's texts, where there are several.
        """
        if not self.rows:
            return np.zeros_like(self.gaps)
        level, second = self.values / self.rows
        deviation = np.sqrt(np.maximum(second - level**2, 0))
        # Noise of rounding is no difference.
        usable = deviation > 1e-6 * np.maximum(np.sqrt(second), 1e-12)
        if len(self.by_text) > 1:
            means = np.stack([total / count for count, total in self.by_text.values()])
            error = means.std(axis=0, ddof=1) / np.sqrt(len(means))
        else:
            error = np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 0) / max(self.count - 1, 1))
        scaled = np.where(usable, error / np.where(usable, deviation, 1.0), 0.0)
        steady = float(np.median(scaled[usable])) if usable.any() else 1.0
        effect = np.where(usable, self.mean / np.where(usable, deviation, 1.0), 0.0)
        found: Floats = effect / np.maximum(scaled + steady, 1e-12)
        return found


@dataclass
class FeatureRanking:
    """Paired differences of every feature on the fitting half, summed up question by question.

    Args:
        tones: the variants that are compared.
        reference: what with.
        table: all trajectories, see `Tokens.table`.
    """

    tones: Sequence[str]
    reference: str
    table: pd.DataFrame
    _sums: dict[tuple[str, str], Sums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._variants = self.table["variant"].to_numpy(dtype=object)
        self._texts = self.table["paraphrase"].astype("Int64").fillna(0).to_numpy(dtype=int)

    def add(self, block: Block) -> None:
        """Take in one question."""
        rows, means = block
        for part, values in means.items():
            known = ~np.isnan(values).any(axis=1)
            theirs = values[known & (self._variants[rows] == self.reference)]
            for tone in self.tones:
                own = known & (self._variants[rows] == tone)
                width = values.shape[1]
                sums = self._sums.setdefault((tone, part), Sums(np.zeros(width), np.zeros(width), np.zeros((2, width))))
                if own.any() and len(theirs):
                    sums.add(values[own], theirs, int(self._texts[rows[own]][0]))

    def mean(self, tone: str, part: str) -> Floats:
        """(width,): the mean paired difference."""
        return self._sums[tone, part].mean

    def choose(self, count: int) -> list[FeatureCandidate]:
        """The features that differ most clearly, for each tone and part, so many at most."""
        found = []
        for (tone, part), sums in self._sums.items():
            score = sums.score()
            order = np.argsort(-np.abs(score), kind="stable")[:count]
            found += [
                FeatureCandidate(tone, part, int(feature), rank, float(score[feature]))
                for rank, feature in enumerate(order, 1)
                if score[feature] != 0
            ]
        return found
