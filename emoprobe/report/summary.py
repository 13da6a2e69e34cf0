"""The headline numbers of an experiment: `report.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pandas as pd

from emoprobe.analysis.limits import data_limits
from emoprobe.analysis.looks import is_last, registered_looks
from emoprobe.analysis.origin_limits import (
    api_limits,
    first_answer_limits,
    folder_limits,
    hardware_limits,
    judge_limits,
    model_settings,
    prompt_limits,
)
from emoprobe.analysis.outcomes import outcomes_of
from emoprobe.analysis.preregistration import deviations
from emoprobe.config.experiment import Config
from emoprobe.report.figures import table_rules, tables_there
from emoprobe.report.statements import behaviour, features, probes, steering
from emoprobe.report.statements.notes import notes
from emoprobe.results.layout import Layout
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.preregistration import Preregistration, read_registrations
from emoprobe.results.statement import Statement, Verdict
from emoprobe.results.tables import read_table

# Table → the key that its rows have in `report.json`, if they are part of it.
OPTIONAL = {
    "outcomes": "outcomes",
    "judges": "judges",
    "format_noise": "format_noise",
    "probe_tests": "probes",
    "probe_transfer": None,
    "steering_tests": "steering",
    "steering_mediation": "mediation",
    "autoencoders": "autoencoders",
    "features": None,
}


def report(
    config: Config,
    layout: Layout,
    rules: Collection[str] | None = None,
    code: Callable[[], Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Return the content of `report.json`; what is unknown of a folder is null.

    Args:
        config: the experiment.
        layout: its folder.
        rules: the rules whose tables are part of the report, those of the config by default. Other tables in the
            folder are left from another config.
        code: returns the digests of the analysis, where the plan has some to compare; None: they are not compared.
    """
    current = tables_there(layout, table_rules(config) if rules is None else rules)
    names = ["trajectories", "accuracy", "paired_tests", "consistency", "workers"]
    names += [name for name in OPTIONAL if name in current]
    tables = {name: read_table(layout.root, name) for name in names}
    trajectories, agreement = tables["trajectories"], tables["consistency"].iloc[0]
    plan = Preregistration.read_file(layout.plan) if layout.plan.exists() else None
    return {
        "experiment": config.experiment.name,
        "model": _model(config, layout),
        "trajectories": len(trajectories),
        "samples": int(trajectories["sample_id"].nunique()),
        "example": next(iter(trajectories["question"].dropna()), None),
        "truncated": _share(trajectories["truncated"]),
        "plan_sha256": None if plan is None else plan.sha256,
        "accuracy": records(tables["accuracy"]),
        "paired_tests": records(tables["paired_tests"]),
        "all_solve": int(agreement["all_solve"]),
        "none_solves": int(agreement["none_solves"]),
        "workers": records(tables["workers"]),
        **{key: records(tables[name]) if name in tables else [] for name, key in OPTIONAL.items() if key},
        "statements": [statement.values() for statement in statements(tables, config, plan, layout, code)],
    }


def statements(
    tables: dict[str, pd.DataFrame],
    config: Config,
    plan: Preregistration | None,
    layout: Layout,
    code: Callable[[], Mapping[str, str]] | None = None,
) -> list[Statement]:
    """Return every statement: planned and primary contrasts, probes, steering, features, notes, secondary contrasts.

    Contrasts are in the order of the graders.

    Args:
        tables: the tables by name.
        config: the config of the analysis.
        plan: the analysis plan; None where none was written before the run.
        layout: the experiment's folder, whose files may be missing.
        code: as of `report`.
    """
    trajectories, tests = tables["trajectories"], tables["paired_tests"]
    outcomes = outcomes_of(config)
    first, secondary = (
        [
            statement
            for outcome in outcomes
            for family in families
            for statement in behaviour.comparisons(tests, outcome.margin, outcome.column, family)
        ]
        for families in (("planned", "primary"), ("secondary",))
    )
    inside: list[Statement] = []
    if "probe_tests" in tables:
        inside += probes.statements(tables["probe_tests"], tables["probe_transfer"])
    if "steering_tests" in tables:
        inside += steering.statements(tables["steering_tests"], tables["steering_mediation"])
    if "features" in tables:
        inside += features.statements(tables["autoencoders"], tables["features"])
    looks = registered_looks(config, plan)
    if not is_last(looks, trajectories["sample_id"].nunique()):
        inside = [described_alone(statement, max(looks or {})) for statement in inside]
    now = None if plan is None or plan.code is None or code is None else code()
    changed = [] if plan is None else deviations(plan, config, trajectories, now)
    written = read_registrations(layout.registrations)
    limits = [
        *data_limits(
            trajectories,
            tables["accuracy"],
            tests,
            tables["consistency"],
            plan,
            changed,
            written,
            tables.get("format_noise"),
            graded=config.grades_answers,
        ),
        *hardware_limits(trajectories, config, model_settings(layout)),
        *api_limits(layout, config),
        *first_answer_limits(trajectories, config),
        *judge_limits(tables.get("judges")),
        *prompt_limits(RunMetadata.of(layout).prompt, trajectories),
        *folder_limits(layout, config, trajectories),
    ]
    return [*first, *inside, *notes(limits), *secondary]


def described_alone(statement: Statement, last: int) -> Statement:
    """Return a statement that is tested at the last look alone, as a description before it."""
    if statement.verdict is Verdict.NOTE:
        return statement
    kind, _, name = statement.about.partition(":")
    text = (
        f"{kind.capitalize()} {name}: described in the tables, and tested at the last look alone, with {last} "
        "questions."
    )
    return statement.model_copy(update={"verdict": Verdict.NOTE, "text": text, "p": None})


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON objects, with null for missing values."""
    return json.loads(table.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]


def _model(config: Config, layout: Layout) -> dict[str, Any]:
    """The model as the folder names it, in its metadata or its config; a default of the config names none."""
    model = RunMetadata.of(layout).model.values()
    named = config.model.model_fields_set if "model" in config.model_fields_set else set()
    for field, key in (("id", "source"), ("dtype", "dtype"), ("revision", "revision")):
        if model[field] is None and key in named:
            model[field] = getattr(config.model, key)
    return model


def _share(values: pd.Series) -> float | None:
    known = values.dropna()
    return round(float(known.astype(float).mean()), 6) if len(known) else None
