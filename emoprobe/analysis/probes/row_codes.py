"""What each row of the activations is: its variant, question, group, fold and labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from emoprobe.analysis.questions import asked_in
from emoprobe.config.experiment import Config
from emoprobe.config.science.prompt import SIGNS

NONE = -1  # the code of a label that a row does not have


@dataclass(frozen=True)
class RowCodes:
    """Rows by codes, each an array (n,).

    `valence` is −1, 0 or 1 for each of `variants`, 0 for those that are no class, and `stratum` is the code of its
    arousal, 0 for all where one variant with a valence has none. A `group` holds questions that belong
    together and lies in one of `folds` folds as a whole. `correct` is 0, 1 or −1 for unknown.
    """

    variants: list[str]
    valence: np.ndarray
    stratum: np.ndarray
    folds: int
    groups: int
    seed: int
    variant: np.ndarray
    question: np.ndarray
    group: np.ndarray
    fold: np.ndarray
    draw: np.ndarray
    paraphrase: np.ndarray
    correct: np.ndarray
    truncated: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, config: Config) -> RowCodes:
        """Code the rows of a table of trajectories; folds are dealt without a look at any label."""
        variants = list(dict.fromkeys(table["variant"].astype(str)))
        place = {name: number for number, name in enumerate(variants)}
        valence = dict(zip(table["variant"].astype(str), table["valence"], strict=True))
        signs = np.array([SIGNS.get(_text(valence[name]), 0) for name in variants])
        question = pd.factorize(table["sample_id"])[0]
        group = _groups(table, config.probes.folds)
        count = min(config.probes.folds, len(np.unique(group)))
        return cls(
            variants=variants,
            valence=signs,
            stratum=_strata(config, variants, signs),
            folds=count,
            groups=int(group.max()) + 1,
            seed=config.experiment.seed,
            variant=np.array([place[name] for name in table["variant"].astype(str)]),
            question=question,
            group=group,
            fold=deal_folds(group, count, config.experiment.seed),
            draw=_column(table, "draw", 1),
            paraphrase=_column(table, "paraphrase", NONE),
            correct=_column(table, "correct", NONE),
            truncated=_column(table, "truncated", 0) == 1,
        )

    def __len__(self) -> int:
        return len(self.variant)

    def take(self, rows: np.ndarray) -> RowCodes:
        """The same for some rows, given as a mask or places. Codes of variants, groups and folds stay."""
        return RowCodes(
            self.variants, self.valence, self.stratum, self.folds, self.groups, self.seed,
            *(values[rows] for values in (
                self.variant, self.question, self.group, self.fold, self.draw, self.paraphrase, self.correct,
                self.truncated,
            )),
        )  # fmt: skip

    def with_folds(self, fold: np.ndarray) -> RowCodes:
        """The same rows divided otherwise: codes from 0, each of which occurs."""
        return RowCodes(
            self.variants, self.valence, self.stratum, int(fold.max()) + 1, self.groups, self.seed, self.variant,
            self.question, self.group, fold, self.draw, self.paraphrase, self.correct, self.truncated,
        )  # fmt: skip

    @property
    def leverage(self) -> np.ndarray:
        """(groups): how much more the error of a mean over a group's fold shows when the group is left out of it.

        1 / (1 − its share of the fold's rows), as of the jackknife; the larger the share, the more the mean follows it.
        """
        rows = np.bincount(self.group, minlength=self.groups)
        fold = np.zeros(self.groups, dtype=int)
        fold[self.group] = self.fold
        share = rows / np.maximum(1, np.bincount(self.fold, minlength=self.folds))[fold]
        factors: np.ndarray = 1 / np.maximum(1 - share, 0.5)
        return factors

    @property
    def places_in_folds(self) -> np.ndarray:
        """(n): how many rows of its fold precede each row."""
        return places_in(self.fold)

    def lacks(self, variants: np.ndarray) -> np.ndarray:
        """(n): whether the row's question has no row of one of these variants, given by their codes."""
        has = np.zeros((int(self.question.max(initial=NONE)) + 1, len(self.variants)), dtype=bool)
        has[self.question, self.variant] = True
        complete: np.ndarray = np.logical_and.reduce(has[:, variants], axis=1)
        lacking: np.ndarray = ~complete[self.question]
        return lacking

    @property
    def texts(self) -> np.ndarray:
        """(n): codes of the texts of all variants."""
        codes: np.ndarray = np.unique(np.stack([self.variant, self.paraphrase]), axis=1, return_inverse=True)[1]
        return codes.reshape(-1)

    @property
    def left_out(self) -> list[tuple[int, ...]]:
        """The folds that each training set leaves out: one for a test, two for a choice inside of a training set."""
        return [(fold,) for fold in range(self.folds)] + list(combinations(range(self.folds), 2))

    @property
    def in_training(self) -> np.ndarray:
        """(training sets, n): whether a row belongs to it."""
        return np.stack([~np.isin(self.fold, out) for out in self.left_out])

    def training_set(self, *out: int) -> int:
        """The place in `left_out` of the training set without these folds."""
        return self.left_out.index(tuple(sorted(out)))


def places_in(fold: np.ndarray) -> np.ndarray:
    """How many rows with the same code precede each row, (n,)."""
    places = np.empty(len(fold), dtype=int)
    for code in np.unique(fold):
        places[fold == code] = np.arange((fold == code).sum())
    return places


def _strata(config: Config, variants: list[str], signs: np.ndarray) -> np.ndarray:
    known = [config.variants.get(name) for name in variants]
    arousal = [None if variant is None else variant.arousal for variant in known]
    if any(level is None for level, sign in zip(arousal, signs, strict=True) if sign):
        return np.zeros(len(variants), dtype=int)
    return np.array([int(level == "high") for level in arousal])


def deal_folds(group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row: groups stay together, folds have about equally many rows."""
    folds_of = np.zeros(len(group), dtype=int)
    if folds < 2:
        return folds_of
    for number, (_, test) in enumerate(GroupKFold(folds, shuffle=True, random_state=seed).split(group, groups=group)):
        folds_of[test] = number
    return folds_of


def folds_by_group(table: pd.DataFrame, folds: int) -> bool:
    """Return whether there are groups enough to keep each in one fold.

    A handful of groups, such as two levels of difficulty, cannot be divided: then folds go by question, and the group
    is one of the nuisance features that a probe has to beat.
    """
    return bool(_group_names(table).nunique() >= folds)


def _groups(table: pd.DataFrame, folds: int) -> np.ndarray:
    """Codes of the groups; a question without one is its own, as every question is where there are too few groups."""
    names = _group_names(table) if folds_by_group(table, folds) else asked_in(table)
    codes: np.ndarray = pd.factorize(names)[0]
    return codes


def _group_names(table: pd.DataFrame) -> pd.Series:
    return table["group"].astype("string").radd("group ").fillna(asked_in(table))


def _column(table: pd.DataFrame, name: str, missing: int) -> np.ndarray:
    return table[name].astype("Int64").fillna(missing).to_numpy(dtype=int)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
