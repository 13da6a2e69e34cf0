"""Tables across the experiments of a study, with a correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.outcomes import measured_column
from emoprobe.analysis.paired_tests import corrected, verdict
from emoprobe.config.experiment import Config
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame, read_table


def study_accuracy(configs: Mapping[str, Config], results: Path) -> pd.DataFrame:
    """The accuracy of each variant in each experiment.

    Args:
        configs: the experiments by name.
        results: the folder in which their folders lie.
    """
    return frame(TABLES["study_accuracy"], _rows(_gathered(configs, results, "accuracy")))


def study_outcomes(configs: Mapping[str, Config], results: Path) -> pd.DataFrame:
    """The mean of each outcome in each variant in each experiment.

    Args:
        configs: the experiments by name.
        results: the folder in which their folders lie.
    """
    return frame(TABLES["study_outcomes"], _rows(_gathered(configs, results, "outcomes")))


def study_paired_tests(configs: Mapping[str, Config], results: Path) -> pd.DataFrame:
    """Every comparison of every experiment; each family is corrected over all experiments together.

    Args:
        configs: the experiments by name.
        results: the folder in which their folders lie.
    """
    table = _gathered(configs, results, "paired_tests").reset_index(drop=True)
    for p in ("p", "p_equivalent"):
        table[f"{p}_study"] = corrected(table, p)
    table["verdict_study"] = [
        verdict(*values)
        for values in zip(table["p_study"], table["p_equivalent_study"], table["scope"], table["tested"], strict=True)
    ]
    return frame(TABLES["study_paired_tests"], _rows(table))


def shared_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the planned and primary rows of `study_paired_tests` on outcomes that the experiments share.

    An outcome is shared if at least two experiments have it; of a study of one experiment all are.
    """
    compared = tests[~tests["family"].str.endswith("secondary")]
    columns = compared["measure"].map(measured_column)
    experiments = compared.groupby(columns)["experiment"].transform("nunique")
    return compared[experiments >= min(2, tests["experiment"].nunique())]


def valences_of(accuracy: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the valence of each variant in each experiment, from the table `study_accuracy`."""
    return {
        str(experiment): dict(zip(rows["variant"], rows["valence"], strict=True))
        for experiment, rows in accuracy.groupby("experiment", sort=False)
    }


def _gathered(configs: Mapping[str, Config], results: Path, name: str) -> pd.DataFrame:
    parts = []
    for experiment, config in configs.items():
        table = read_table(results / experiment, name)
        where = {"experiment": experiment, "model": config.model.source, "dataset": config.dataset.source}
        parts.append(table.assign(**where)[[*where, *table.columns]])
    return pd.concat(parts)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
