"""The analysis of an experiment's steered trajectories: every table, from the table of the trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from emoprobe.analysis.contrasts import references_of
from emoprobe.analysis.steering.coherence import Limits, coherent
from emoprobe.analysis.steering.direction_ranking import rank
from emoprobe.analysis.steering.direction_tests import candidates, direction_rows
from emoprobe.analysis.steering.effect_grid import EffectGrid
from emoprobe.analysis.steering.effects import effect_rows
from emoprobe.analysis.steering.mediation import Texts, mediation_rows
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame


def steering_tests(table: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """The table `steering_tests` alone.

    Args:
        table: the table `steering`.
        limits: of coherent text.
    """
    grid = EffectGrid(table)
    rankings = {number: rank(grid, number, limits) for number in candidates(grid)}
    return frame(TABLES["steering_tests"], direction_rows(grid, coherent(grid, limits), rankings))


def analyze(
    table: pd.DataFrame,
    limits: Limits,
    trajectories: pd.DataFrame,
    paired_tests: pd.DataFrame,
    references: Sequence[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Name → each table of the catalogue that `analyze_steering` makes.

    Args:
        table: the table `steering`.
        limits: of coherent text.
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
        "steering_tests": direction_rows(grid, flags, rankings),
        "steering_mediation": mediation_rows(grid, flags, Texts.of(trajectories, grid.ids), names, paired_tests),
    }
    return {name: frame(TABLES[name], entries) for name, entries in rows.items()}
