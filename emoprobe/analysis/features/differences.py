"""Which features differ between a tone and its reference: put up on one half of the trajectories, tested on the other.

What is compared is a feature's mean activation over the tokens of the question, or of the response, of a trajectory.
The prefix's own tokens are left out: they are other words, so nearly any feature differs there. Tone and reference are
paired by question; what is independent are the tone's texts, as in every other comparison.
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

# Rows of one question with their means of features: places in the table, part → (rows, width), NaN without tokens.
Block = tuple[npt.NDArray[np.int64], dict[str, Floats]]


@dataclass(frozen=True)
class Choice:
    """A feature that is put up for a test: of which tone, over which part, and how it differed on the fitting half."""

    variant: str
    part: str
    feature: int
    rank: int
    fitted: float


@dataclass
class Ranking:
    """Paired differences of every feature on the fitting half, summed up question by question.

    Args:
        tones: the variants that are compared.
        reference: what with.
        variants: the variant of each row of the table.
    """

    tones: Sequence[str]
    reference: str
    variants: npt.NDArray[np.object_]
    _sums: dict[str, Floats] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        """Take in one question."""
        rows, means = block
        for part, values in means.items():
            sums = self._sums.setdefault(part, np.zeros((3, len(self.tones), values.shape[1])))
            with np.errstate(invalid="ignore"):
                theirs = _mean(values[self.variants[rows] == self.reference])
                for number, tone in enumerate(self.tones):
                    gap = _mean(values[self.variants[rows] == tone]) - theirs
                    known = ~np.isnan(gap)
                    gap = np.where(known, gap, 0.0)
                    sums[:, number] += np.stack([known, gap, gap**2])

    def mean(self, tone: str, part: str) -> Floats:
        """(width,): the mean paired difference."""
        count, total, _ = self._sums[part][:, list(self.tones).index(tone)]
        mean: Floats = total / np.maximum(count, 1)
        return mean

    def standardized(self, tone: str, part: str) -> Floats:
        """(width,): the mean paired difference in its standard deviations over questions; 0 where it never varies."""
        count, total, squares = self._sums[part][:, list(self.tones).index(tone)]
        mean = total / np.maximum(count, 1)
        # Noise of rounding is no difference.
        deviation = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        usable = (count > 1) & (deviation > 1e-6 * np.maximum(np.sqrt(squares / np.maximum(count, 1)), 1e-12))
        return np.where(usable, mean / np.where(usable, deviation, 1.0), 0.0)

    def choose(self, count: int) -> list[Choice]:
        """The features that differ most, for each tone and part, so many at most."""
        found = []
        for part in self._sums:
            for tone in self.tones:
                fitted = self.standardized(tone, part)
                order = np.argsort(-np.abs(fitted), kind="stable")[:count]
                found += [
                    Choice(tone, part, int(feature), rank, float(fitted[feature]))
                    for rank, feature in enumerate(order, 1)
                    if fitted[feature] != 0
                ]
        return found


def test_choices(
    table: pd.DataFrame, reference: str, choices: Sequence[Choice], blocks: Iterable[Block]
) -> list[dict[str, Any]]:
    """Test features on the other half: a row of the table `features` for each choice, uncorrected.

    Args:
        table: all trajectories, see `Tokens.table`.
        reference: what the tones are compared with.
        choices: n of them; column i of a block's values belongs to choice i, and is NaN for parts other than its own.
        blocks: those of the testing half.
    """
    values = np.full((len(table), len(choices)), np.nan)
    for rows, means in blocks:
        for number, choice in enumerate(choices):
            values[rows, number] = means[choice.part][:, number]
    questions = Questions(table)
    found = []
    for number, choice in enumerate(choices):
        ours, own = _by_question(questions, choice.variant, values[:, number])
        theirs, other = _by_question(questions, reference, values[:, number])
        found.append(_row(questions, choice, reference, (ours, own), (theirs, other), values[:, number]))
    return found


test_choices.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _row(
    questions: Questions, choice: Choice, reference: str, tone: tuple[Floats, Labels | None],
    other: tuple[Floats, Labels | None], values: Floats,
) -> dict[str, Any]:  # fmt: skip
    gap = tone[0] - other[0]
    here = ~np.isnan(gap)
    own, theirs = (labels if labels is None else labels[here] for labels in (tone[1], other[1]))
    groups = None if questions.groups is None else questions.groups[here]
    row: dict[str, Any] = {
        "variant": choice.variant,
        "reference": reference,
        "part": choice.part,
        "feature": choice.feature,
        "rank": choice.rank,
        "fitted": choice.fitted,
        "n": int(here.sum()),
        "texts": _count(questions, choice.variant, here),
        "unit": "texts" if own is not None or theirs is not None else "questions" if groups is None else "groups",
    }
    if not here.any():
        return row
    found = difference(gap[here], own, theirs, np.nan, share=False, groups=groups)
    variant = questions.table["variant"].to_numpy(dtype=object)
    ours, others = (values[(variant == name) & ~np.isnan(values)] for name in (choice.variant, reference))
    spread = float(np.concatenate([ours, others]).std())
    row |= {
        "tone_mean": float(tone[0][here].mean()),
        "reference_mean": float(other[0][here].mean()),
        "difference": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "p": float(found.p),
        "standardized": float(found.value) / spread if spread > 0 else None,
        "auroc": auroc(ours, others) if choice.fitted >= 0 else 1 - auroc(ours, others),
    }
    return row


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
    found = []
    for row in rows:
        p, p_tone = next(places[row["variant"]]) * tested / max(1, differing), float(of_tone[row["variant"]])
        differs = None if np.isnan(p) else bool(p_tone <= LEVEL and p <= LEVEL)
        found.append(row | {"p_corrected": float(np.minimum(p, 1.0)), "p_tone": p_tone, "differs": differs})
    return found


def auroc(ours: Floats, theirs: Floats) -> float:
    """How often a value of the first is the larger one, ties counted half; NaN where one side has none."""
    if not len(ours) or not len(theirs):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([ours, theirs]))
    return float((ranks[: len(ours)].sum() - len(ours) * (len(ours) + 1) / 2) / (len(ours) * len(theirs)))


def _by_question(questions: Questions, variant: str, values: Floats) -> tuple[Floats, Labels | None]:
    """(questions,): a variant's means over the draws, and which text each question has, if the variant has several."""
    own = questions.table["variant"].eq(variant).to_numpy(dtype=bool) & ~np.isnan(values)
    asked = pd.Categorical(questions.table["sample_id"], categories=questions.ids).codes[own]
    total = np.bincount(asked, values[own], minlength=len(questions.ids))
    count = np.bincount(asked, minlength=len(questions.ids))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan), questions.texts(variant)


def _count(questions: Questions, variant: str, here: npt.NDArray[np.bool_]) -> int:
    """How many texts of a variant there are among some questions."""
    labels = questions.texts(variant)
    return min(1, questions.count(variant)) if labels is None else len(np.unique(labels[here]))


def _mean(values: Floats) -> Floats:
    """Over rows that have a value; NaN where none has."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
