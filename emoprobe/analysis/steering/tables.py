"""The tables of the steered trajectories, and what each dose does to each outcome, beside the random directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.estimates import MIN_QUESTIONS, Floats, difference
from emoprobe.analysis.steering.direction_ranking import DirectionRanking, rank
from emoprobe.analysis.steering.direction_tests import candidates, direction_rows
from emoprobe.analysis.steering.effect_grid import (
    BAND,
    CONTROLS,
    PRIMARY_OUTCOME,
    RANDOM,
    SHARES,
    STEERING_OUTCOMES,
    EffectGrid,
    Flags,
    Limits,
    coherent,
)
from emoprobe.analysis.steering.mediation import Texts, mediation_rows
from emoprobe.config.science.analysis import references_of
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame


def steering_tests(table: pd.DataFrame, limits: Limits, texts: Mapping[str, int]) -> pd.DataFrame:
    """The table `steering_tests` alone.

    Args:
        table: the table `steering`.
        limits: of coherent text.
        texts: tone → number of texts that its directions were fitted on, see `fitted_texts`.
    """
    grid = EffectGrid(table)
    rankings = {number: rank(grid, number, limits) for number in candidates(grid)}
    return frame(TABLES["steering_tests"], direction_rows(grid, coherent(grid, limits), rankings, texts))


def analyze(
    table: pd.DataFrame,
    limits: Limits,
    texts: Mapping[str, int],
    trajectories: pd.DataFrame,
    paired_tests: pd.DataFrame,
    references: Sequence[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Name → each table of the catalogue that `analyze_steering` makes.

    Args:
        table: the table `steering`.
        limits: of coherent text.
        texts: tone → number of texts that its directions were fitted on, see `fitted_texts`.
        trajectories: the table of that name, which tells the variants' texts.
        paired_tests: the table of that name, which tells the tones that differ.
        references: `analysis.references`.
    """
    grid = EffectGrid(table)
    rankings = {number: rank(grid, number, limits) for number in candidates(grid)}
    flags = coherent(grid, limits)
    names = references_of(trajectories["variant"].unique(), references)
    rows = {
        "steering_effects": effect_rows(grid, flags, rankings),
        "steering_tests": direction_rows(grid, flags, rankings, texts),
        "steering_mediation": mediation_rows(grid, flags, Texts.of(trajectories, grid.ids), names, paired_tests),
    }
    return {name: frame(TABLES[name], entries) for name, entries in rows.items()}


def effect_rows(grid: EffectGrid, flags: Flags, rankings: Mapping[int, DirectionRanking]) -> list[dict[str, Any]]:
    """Rows of the table, tested directions first.

    Args:
        grid: the trajectories.
        flags: which cells are coherent.
        rankings: the tested directions beside their controls, by number.
    """
    order = sorted(range(len(grid.places)), key=lambda row: grid.directions[grid.owner[row]].family in CONTROLS)
    rows: list[dict[str, Any]] = [{} for _ in range(len(order) * len(STEERING_OUTCOMES))]
    for place, outcome in enumerate(STEERING_OUTCOMES):
        columns = _Columns.of(grid, outcome)
        bands = _Bands(grid, outcome)
        for number, row in enumerate(order):
            direction = grid.directions[grid.owner[row]]
            rows[number * len(STEERING_OUTCOMES) + place] = {
                "direction": direction.name,
                "family": direction.family,
                "tone": direction.tone,
                **grid.places[row]._asdict(),
                "outcome": outcome,
                **columns.at(row),
                **bands.at(row),
                **(_ranks(grid, rankings, row) if outcome == PRIMARY_OUTCOME else {}),
                "coherent": bool(flags[row]),
            }
    return rows


@dataclass(frozen=True)
class _Columns:
    """Estimates of one outcome in every cell."""

    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, grid: EffectGrid, outcome: str) -> _Columns:
        changes = grid.changes(outcome)
        estimates = difference(changes, None, None, np.nan, outcome in SHARES, grid.groups, skewed=True)
        n = (~np.isnan(changes)).sum(axis=-1)
        centre = estimates.value
        residuals = np.where(np.isnan(changes), 0.0, changes - centre[:, None])
        deviation = np.sqrt((residuals**2).sum(axis=-1) / np.maximum(n - 1, 1))
        against = (changes * centre[:, None] < 0).sum(axis=-1) / np.maximum(n, 1)
        return cls(
            {
                "estimate": centre,
                "low": estimates.low,
                "high": estimates.high,
                "n": n,
                "deviation": np.where(n > 1, deviation, np.nan),
                "wrong_way": np.where((n > 0) & (centre != 0) & (outcome != "kl"), against, np.nan),
            }
        )

    def at(self, row: int) -> dict[str, Any]:
        return {name: values[row].item() for name, values in self.values.items()}


class _Bands:
    """Effects of the random directions on one outcome, by place."""

    def __init__(self, grid: EffectGrid, outcome: str) -> None:
        self._grid, self._changes = grid, grid.changes(outcome)
        random = set(grid.rows_of([RANDOM]))
        self._rows: dict[Any, list[int]] = {}
        for row, place in enumerate(grid.places):
            if int(grid.owner[row]) in random:
                self._rows.setdefault(place, []).append(row)
        self._known: dict[Any, Flags] = {
            place: np.asarray((~np.isnan(self._changes[rows])).all(axis=0)) for place, rows in self._rows.items()
        }

    def at(self, row: int) -> dict[str, Any]:
        place = self._grid.places[row]
        direction = self._grid.directions[self._grid.owner[row]]
        rows = self._rows.get(place, [])
        nothing: dict[str, Any] = {"controls": len(rows), "shared_n": None, "shared_estimate": math.nan}
        nothing |= {"control_low": math.nan, "control_high": math.nan}
        if not rows or direction.family == RANDOM:
            return nothing
        shared = self._known[place] & ~np.isnan(self._changes[row])
        if shared.sum() < MIN_QUESTIONS:
            return nothing | {"shared_n": int(shared.sum())}
        others: Floats = self._changes[rows][:, shared].mean(axis=-1)
        low, high = np.quantile(others, BAND)
        return {
            "controls": len(rows),
            "shared_n": int(shared.sum()),
            "shared_estimate": float(self._changes[row, shared].mean()),
            "control_low": float(low),
            "control_high": float(high),
        }


def _ranks(grid: EffectGrid, rankings: Mapping[int, DirectionRanking], row: int) -> dict[str, float]:
    """Of a cell alone, and against the largest of each random direction."""
    ranking = rankings.get(int(grid.owner[row]))
    if ranking is None or not ranking.controls or grid.places[row] not in ranking.places:
        return {}
    cell = ranking.places.index(grid.places[row])
    sizes = np.abs(ranking.effects[: 1 + ranking.controls, cell])
    alone = float(np.sum(sizes >= sizes[0])) / (1 + ranking.controls)
    return {
        "p": alone,
        "p_corrected": ranking.p(float(ranking.standardised[0, cell])) if ranking.flags[0, cell] else math.nan,
    }
