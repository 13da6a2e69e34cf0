"""The headline numbers of an experiment: `report.json`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pandas as pd

from emoprobe.analysis.preregistration import deviations
from emoprobe.config.experiment import Config
from emoprobe.report.parts import table_rules, tables_there
from emoprobe.report.statements import behaviour, data, features, folder, hardware, probes, prompts, steering
from emoprobe.results.layout import Layout
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.preregistration import Preregistration
from emoprobe.results.statement import Statement
from emoprobe.results.tables import read_table


def report(config: Config, layout: Layout, rules: Collection[str] | None = None) -> dict[str, Any]:
    """The content of `report.json`; what a folder does not tell of itself is null.

    Args:
        config: the experiment.
        layout: its folder.
        rules: the rules whose tables are part of the report, those of the config by default. Other tables that lie in
            the folder are left from another config.
    """
    names = ("trajectories", "accuracy", "paired_tests", "consistency", "workers")
    found = {name: read_table(layout.root, name) for name in names}
    there = tables_there(layout, table_rules(config) if rules is None else rules)
    trajectories = found["trajectories"]
    for name in ("probe_tests", "probe_transfer", "steering_tests", "steering_mediation", "autoencoders", "features"):
        if name in there:
            found[name] = read_table(layout.root, name)
    agreement = found["consistency"].iloc[0]
    plan = Preregistration.read_file(layout.plan) if layout.plan.exists() else None
    return {
        "experiment": config.experiment.name,
        "model": _model(config, layout),
        "trajectories": len(trajectories),
        "samples": int(trajectories["sample_id"].nunique()),
        "truncated": _share(trajectories["truncated"]),
        "plan_sha256": None if plan is None else plan.sha256,
        "accuracy": records(found["accuracy"]),
        "paired_tests": records(found["paired_tests"]),
        "all_solve": int(agreement["all_solve"]),
        "none_solves": int(agreement["none_solves"]),
        "workers": records(found["workers"]),
        "probes": records(found["probe_tests"]) if "probe_tests" in found else [],
        "steering": records(found["steering_tests"]) if "steering_tests" in found else [],
        "mediation": records(found["steering_mediation"]) if "steering_mediation" in found else [],
        "autoencoders": records(found["autoencoders"]) if "autoencoders" in found else [],
        "statements": [statement.values() for statement in statements(found, config, plan, layout)],
    }


def statements(
    found: dict[str, pd.DataFrame], config: Config, plan: Preregistration | None, layout: Layout
) -> list[Statement]:
    """What this experiment shows and what it cannot: comparisons, probes, what the data allow; secondary ones last.

    Args:
        found: the tables by name.
        config: the config of the analysis.
        plan: what was planned before the run.
        layout: the experiment's folder, whose files may be missing.
    """
    changed = [] if plan is None else deviations(plan, config, found["trajectories"])
    said = probes.statements(found["probe_tests"], found["probe_transfer"]) if "probe_tests" in found else []
    if "steering_tests" in found:
        said += steering.statements(found["steering_tests"], found["steering_mediation"])
    if "features" in found:
        said = [*said, *features.statements(found["autoencoders"], found["features"])]
    notes = data.notes(
        found["trajectories"], found["accuracy"], found["paired_tests"], found["consistency"], plan, changed
    )
    tests, margin = found["paired_tests"], config.analysis.margin
    primary, secondary = (
        behaviour.comparisons(tests[tests["family"].eq("primary") == first], margin) for first in (True, False)
    )
    notes += hardware.notes(found["trajectories"])
    notes += prompts.notes(RunMetadata.of(layout).prompt, found["trajectories"])
    return [*primary, *said, *notes, *folder.notes(layout, config, found["trajectories"]), *secondary]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON objects, with null for what is missing."""
    return json.loads(table.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]


def _model(config: Config, layout: Layout) -> dict[str, Any]:
    """The model as the folder names it, in its metadata or its config; a default of the config names none."""
    found = RunMetadata.of(layout).model.values()
    said = config.model.model_fields_set if "model" in config.model_fields_set else set()
    for field, key in (("id", "source"), ("dtype", "dtype"), ("revision", "revision")):
        if found[field] is None and key in said:
            found[field] = getattr(config.model, key)
    return found


def _share(values: pd.Series) -> float | None:
    known = values.dropna()
    return round(float(known.astype(float).mean()), 6) if len(known) else None
