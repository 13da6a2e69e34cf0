"""Tables across the experiments of a study, with a correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

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


def _gathered(configs: Mapping[str, Config], results: Path, name: str) -> pd.DataFrame:
    parts = []
    for experiment, config in configs.items():
        table = read_table(results / experiment, name)
        where = {"experiment": experiment, "model": config.model.source, "dataset": config.dataset.source}
        parts.append(table.assign(**where)[[*where, *table.columns]])
    return pd.concat(parts)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
