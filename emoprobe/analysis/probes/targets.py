"""What the probes read off: a class for every trajectory, its control task, and the folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from emoprobe.config.experiment import Config


@dataclass(frozen=True)
class Target:
    """A target: `labels` holds a class index for each row, −1 where it has none; `skipped` why it has no probe."""

    name: str
    classes: list[str]
    labels: np.ndarray
    skipped: str | None = None

    @property
    def known(self) -> np.ndarray:
        """Rows with a class."""
        found: np.ndarray = self.labels >= 0
        return found

    def masked(self, rows: np.ndarray) -> Target:
        """The same with the other rows left out."""
        return Target(self.name, self.classes, np.where(rows, self.labels, -1), self.skipped)


def make_target(name: str, table: pd.DataFrame, config: Config) -> Target:
    """The target `variant`, `valence` or `correct` for the rows of the trajectory table.

    It is skipped where fewer than two classes have examples in `probes.min_per_class` samples.
    """
    column = table[name]
    if name == "correct":
        values = column.map(lambda value: None if pd.isna(value) else ("wrong", "correct")[int(value)])
        order = ["wrong", "correct"]
    elif name == "valence":
        values, order = column, ["negative", "neutral", "positive"]
    else:
        values, order = column, list(table["variant"].unique())
    settings = config.probes
    samples = table["sample_id"]
    counts = {value: samples[(values == value).fillna(False).to_numpy(dtype=bool)].nunique() for value in order}
    present = [value for value in order if counts[value] > 0]
    index = {value: number for number, value in enumerate(present)}
    labels = np.array([index.get(value, -1) if isinstance(value, str) else -1 for value in values], dtype=int)
    reason = None
    few = [f"{value} in {counts[value]}" for value in present if counts[value] < settings.min_per_class]
    if len(present) < 2:
        reason = f"only one class has examples ({', '.join(present) or 'none at all'})"
    elif few:
        reason = f"too few samples (probes.min_per_class = {settings.min_per_class}): {', '.join(few)}"
    elif samples.nunique() < settings.folds:
        reason = f"{samples.nunique()} samples cannot be divided into {settings.folds} folds"
    return Target(name, present, labels, reason)


def control_task(target: Target, table: pd.DataFrame, seed: int) -> Target:
    """Labels that depend on the text alone, at random (Hewitt & Liang 2019).

    Each text of each variant (each sample, for control and transforms) gets a class, classes in the proportions of the
    target. A probe that does as well here reads which text it was, and nothing that texts of a class share.
    """
    paraphrases = table["paraphrase"].astype("string").fillna(table["sample_id"])
    kinds = (table["variant"].astype(str) + "/" + paraphrases.astype(str)).to_numpy()
    generator = np.random.default_rng(seed)
    names = sorted(set(kinds[target.known]))
    pool = np.sort(target.labels[target.known])
    drawn = generator.permutation(pool[np.linspace(0, len(pool) - 1, len(names)).astype(int)])
    chosen = dict(zip(names, drawn.tolist(), strict=True))
    labels = np.array([chosen.get(kind, -1) for kind in kinds], dtype=int)
    return Target(f"{target.name}:control", target.classes, np.where(target.known, labels, -1))


def permuted(target: Target, groups: np.ndarray, generator: np.random.Generator) -> Target:
    """The target with its labels dealt out anew: among the rows of a sample, then among samples of the same size.

    So a permutation keeps what the real labels have, that rows of one sample belong together.
    """
    labels = target.labels.copy()
    rows_of = [np.flatnonzero((groups == group) & target.known) for group in np.unique(groups)]
    blocks = [generator.permutation(labels[rows]) for rows in rows_of]
    for size in {len(rows) for rows in rows_of}:
        same = [number for number, rows in enumerate(rows_of) if len(rows) == size]
        for to, origin in zip(same, generator.permutation(same), strict=True):
            labels[rows_of[to]] = blocks[int(origin)]
    return Target(target.name, target.classes, labels)


def make_folds(strata: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row: rows of one sample stay together, strata are spread evenly."""
    found = np.zeros(len(groups), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(groups)), strata, groups)):
        found[test] = number
    return found
