"""How often the 95 % intervals hold the truth, on a grid of sizes, discordance, imbalance and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from emoprobe.analysis.estimates import Estimates, difference, mean
from emoprobe.analysis.power import centre_of
from tests.calibration.allowance import least
from tests.calibration.rows import Row

SIZES = (8, 12, 20, 32, 64, 128, 256, 512, 1319)
TEXTS = (1, 24, 64)
DISCORDANCE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
IMBALANCE = (0.0, 0.5, 1.0)  # (gained − lost) / discordance
ACCURACIES = (0.002, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.998)
DEVIATIONS = (0.3, 0.5)
EVERYWHERE = 0.93


@dataclass(frozen=True)
class Cell:
    """One place of the grid: what is estimated, over how many questions and texts, the share covered, the median width."""

    kind: str
    questions: int
    texts: int
    place: str
    covered: float
    width: float


def _labels(questions: int, texts: int) -> np.ndarray | None:
    """Which text each question has, where there are fewer texts than questions."""
    return np.arange(questions) % texts if 1 < texts < questions else None


def discordance_cells(runs: int, seed: int, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Paired differences with independent flips."""
    generator = np.random.default_rng(seed)
    for n in sizes:
        for discordance in DISCORDANCE:
            for imbalance in IMBALANCE:
                gained, lost = discordance * (1 + imbalance) / 2, discordance * (1 - imbalance) / 2
                draws = generator.random((runs, n))
                flips = np.where(draws < gained, 1.0, np.where(draws > 1 - lost, -1.0, 0.0))
                for texts in TEXTS:
                    labels = _labels(n, texts)
                    found = difference(flips, labels, labels, 0.1)
                    shown = _shown(found, gained - lost)
                    yield Cell("difference", n, texts, f"discordance {discordance:g}, {imbalance:g}", *shown)


def text_cells(runs: int, seed: int, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Paired differences of a tone and a filler whose texts differ, over questions that differ."""
    generator = np.random.default_rng(seed)
    for n in sizes:
        for deviation in DEVIATIONS:
            for accuracy, other in ((0.5, 0.5), (0.8, 0.6), (0.95, 0.95), (0.1, 0.02)):
                difficulty = generator.normal(0, 1, (runs, n))
                for texts in TEXTS[1:]:
                    place, labels = np.arange(n) % texts, _labels(n, texts)
                    sides = []
                    for level in (accuracy, other):
                        centre = centre_of(level, float(np.hypot(1, deviation)))
                        own = generator.normal(0, deviation, (runs, texts))[:, place]
                        sides.append((generator.random((runs, n)) < expit(centre + difficulty + own)).astype(float))
                    found = difference(sides[0] - sides[1], labels, labels, 0.1)
                    shown = _shown(found, accuracy - other)
                    yield Cell("difference", n, texts, f"texts {deviation:g}, {accuracy:g} − {other:g}", *shown)


def accuracy_cells(runs: int, seed: int, sizes: Sequence[int] = SIZES) -> Iterator[Cell]:
    """Accuracies of one variant, also near 0 and 1."""
    generator = np.random.default_rng(seed)
    for n in sizes:
        for accuracy in ACCURACIES:
            right = (generator.random((runs, n)) < accuracy).astype(float)
            for texts in TEXTS:
                found = mean(right, _labels(n, texts), True)
                yield Cell("accuracy", n, texts, f"{accuracy:g}", *_shown(found, accuracy))


def rows(grid: str, runs: int, seed: int) -> list[Row]:
    """A row for each cell of a grid by its name, and one for the mean over all of them."""
    cells = [cell for cell in globals()[grid](runs, seed) if not np.isnan(cell.covered)]
    limit = least(runs, EVERYWHERE)
    found = [
        Row(
            "covered",
            f"{grid}, {cell.kind}",
            f"n = {cell.questions}, {cell.texts} texts, {cell.place}",
            runs,
            cell.covered,
            limit,
            cell.width,
        )
        for cell in cells
    ]
    mean_share = float(np.mean([cell.covered for cell in cells]))
    found.append(Row("covered", f"{grid}, mean", f"{len(cells)} cells", runs * len(cells), mean_share, EVERYWHERE))
    return found


def _shown(found: Estimates, truth: float) -> tuple[float, float]:
    """Share of the intervals that hold the truth, and their median width; NaN where there is none."""
    if not found.known.any():
        return float("nan"), float("nan")
    low, high = found.low[found.known], found.high[found.known]
    return float(((low - 1e-9 <= truth) & (truth <= high + 1e-9)).mean()), float(np.median(high - low))
