"""Choice of features on one half of the trajectories, and their test on the other.

A feature is compared by its mean activation over the tokens of the question, or of the response, of a trajectory.
The tokens of the prefix are left out: they are other words, so nearly any feature differs there. Tone and reference are
paired by question; the independent units are the texts, as in every other comparison. Where a side that adds a text has
one alone, the difference may be that text's, so features are described and not tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from emoprobe.analysis.estimates import Floats, Labels, difference
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL, holm
from emoprobe.config.section import CONTROL

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
        average: Floats = self.gaps / max(self.count, 1)
        return average

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
        scores: Floats = effect / np.maximum(scaled + steady, 1e-12)
        return scores


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
                of_tone = known & (self._variants[rows] == tone)
                width = values.shape[1]
                sums = self._sums.setdefault((tone, part), Sums(np.zeros(width), np.zeros(width), np.zeros((2, width))))
                if of_tone.any() and len(theirs):
                    sums.add(values[of_tone], theirs, int(self._texts[rows[of_tone]][0]))

    def mean(self, tone: str, part: str) -> Floats:
        """(width,): the mean paired difference."""
        return self._sums[tone, part].mean

    def choose(self, count: int) -> list[FeatureCandidate]:
        """The features that differ most clearly, for each tone and part, so many at most."""
        candidates = []
        for (tone, part), sums in self._sums.items():
            score = sums.score()
            order = np.argsort(-np.abs(score), kind="stable")[:count]
            candidates += [
                FeatureCandidate(tone, part, int(feature), rank, float(score[feature]))
                for rank, feature in enumerate(order, 1)
                if score[feature] != 0
            ]
        return candidates


def compared(
    table: pd.DataFrame, reference: str, choices: Sequence[FeatureCandidate], blocks: Iterable[Block]
) -> list[dict[str, Any]]:
    """Test features on the other half: a row of the table `features` for each choice, uncorrected.

    Args:
        table: all trajectories, see `Tokens.table`.
        reference: what the tones are compared with.
        choices: n of them; column i of a block's values belongs to choice i.
        blocks: those of the testing half.
    """
    values = np.full((len(choices), len(table)), np.nan)
    in_part = {part: [at for at, choice in enumerate(choices) if choice.part == part] for part in _parts(choices)}
    for rows, means in blocks:
        for part, columns in in_part.items():
            values[np.array(columns)[:, None], rows] = means[part][:, columns].T
    questions = Questions(table)
    sides = {name: _Side.of(questions, name) for name in {reference, *(choice.variant for choice in choices)}}
    results: dict[int, dict[str, Any]] = {}
    for part, columns in in_part.items():
        for variant in dict.fromkeys(choices[at].variant for at in columns):
            together = [at for at in columns if choices[at].variant == variant]
            measured = _compare(questions, sides[variant], sides[reference], values[together])
            for at, row in zip(together, measured, strict=True):
                choice = choices[at]
                results[at] = {
                    "variant": variant,
                    "reference": reference,
                    "part": part,
                    "feature": choice.feature,
                    "rank": choice.rank,
                    "fitted": choice.fitted,
                } | row
                if choice.fitted < 0 and "auroc" in row:
                    results[at]["auroc"] = 1 - row["auroc"]
    return [results[at] for at in range(len(choices))]


@dataclass(frozen=True)
class _Side:
    """A variant: its rows, the question of each, and which text each question has, if there are several."""

    rows: npt.NDArray[np.int64]
    asked: npt.NDArray[np.int64]
    texts: Labels | None
    count: int
    adds: bool

    @classmethod
    def of(cls, questions: Questions, name: str) -> _Side:
        rows = np.flatnonzero(questions.table["variant"].eq(name))
        asked = pd.Categorical(questions.table["sample_id"].iloc[rows], categories=questions.ids).codes
        return cls(rows, asked.astype(np.int64), questions.texts(name), questions.count(name), name != CONTROL)

    def by_question(self, values: Floats, questions: int) -> Floats:
        """(k, questions): of values (k, rows of the table), the mean over the draws; NaN where there is none."""
        total, count = np.zeros((len(values), questions)), np.zeros((len(values), questions))
        for row, asked in zip(self.rows, self.asked, strict=True):
            known = ~np.isnan(values[:, row])
            total[known, asked] += values[known, row]
            count[known, asked] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _compare(questions: Questions, tone: _Side, other: _Side, values: Floats) -> list[dict[str, Any]]:
    """Test k features over one part, whose values are (k, rows of the table)."""
    ours, theirs = (side.by_question(values, len(questions.ids)) for side in (tone, other))
    # Which questions there are depends on the part and not on the feature.
    here = ~np.isnan(ours - theirs)[0]
    ours, theirs = ours[:, here], theirs[:, here]
    labels = [None if side.texts is None else side.texts[here] for side in (tone, other)]
    groups = None if questions.groups is None else questions.groups[here]
    shared = {
        "n": int(here.sum()),
        "texts": min(1, tone.count) if labels[0] is None else len(np.unique(labels[0])),
        "unit": "texts" if any(each is not None for each in labels) else "questions" if groups is None else "groups",
    }
    if not here.any():
        return [shared] * len(values)
    estimates = difference(ours - theirs, labels[0], labels[1], np.nan, share=False, groups=groups)
    # One text, or texts of which it is unknown which question had which, says nothing of others.
    tested = not any(side.adds and side.texts is None for side in (tone, other))
    rows = []
    for at in range(len(values)):
        single = [side[~np.isnan(side)] for side in (values[at, tone.rows], values[at, other.rows])]
        spread = float(np.concatenate(single).std())
        value = float(estimates.value[at])
        rows.append(
            shared
            | {
                "tone_mean": float(ours[at].mean()),
                "reference_mean": float(theirs[at].mean()),
                "difference": value,
                "low": float(estimates.low[at]),
                "high": float(estimates.high[at]),
                "p": float(estimates.p[at]) if tested else float("nan"),
                "standardized": value / spread if spread > 0 else None,
                "auroc": auroc(*single),
            }
        )
    return rows


def _parts(choices: Sequence[FeatureCandidate]) -> list[str]:
    return list(dict.fromkeys(choice.part for choice in choices))


def corrected(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one method with `p_tone`, `p_corrected` and `differs`.

    A tone differs if Simes's test over all its features (1986) does, by Holm over the tones; so a tone without any
    difference is told to have one in at most 5 % of the experiments, whatever the others do. Its features are corrected
    by Benjamini and Hochberg (1995), at a level that counts that the tone was selected (Benjamini & Bogomolov 2014).
    """
    tones = list(dict.fromkeys(row["variant"] for row in rows))
    within: dict[str, Floats] = {}
    for tone in tones:
        p = np.array([row.get("p", np.nan) for row in rows if row["variant"] == tone], dtype=float)
        known = ~np.isnan(p)
        adjusted = np.full(len(p), np.nan)
        if known.any():
            adjusted[known] = stats.false_discovery_control(p[known], method="bh")
        within[tone] = adjusted
    # The least corrected p of a family is that of Simes's test.
    simes = [float(np.nanmin(within[tone])) if not np.isnan(within[tone]).all() else np.nan for tone in tones]
    of_tone = dict(zip(tones, holm(simes), strict=True))
    differing = sum(p <= LEVEL for p in of_tone.values())
    tested = sum(not np.isnan(p) for p in of_tone.values())
    places = {tone: iter(within[tone]) for tone in tones}
    results = []
    for row in rows:
        p, p_tone = next(places[row["variant"]]) * tested / max(1, differing), float(of_tone[row["variant"]])
        differs = None if np.isnan(p) else bool(p_tone <= LEVEL and p <= LEVEL)
        results.append(row | {"p_corrected": float(np.minimum(p, 1.0)), "p_tone": p_tone, "differs": differs})
    return results


def auroc(ours: Floats, theirs: Floats) -> float:
    """Return how often a value of the first is the larger one, ties counted half; NaN where one side has none."""
    if not len(ours) or not len(theirs):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([ours, theirs]))
    return float((ranks[: len(ours)].sum() - len(ours) * (len(ours) + 1) / 2) / (len(ours) * len(theirs)))
