"""Every table that an experiment can have, with the meaning of each column.

A new table is one entry here; `results.tables` writes it, the rules and the page find it.
"""

from __future__ import annotations

from emoprobe.results.catalogue import behaviour, features, probes, steering
from emoprobe.results.catalogue.table import Column, Kind, Table

__all__ = ["TABLES", "Column", "Kind", "Table", "tables_of"]

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        behaviour.TRAJECTORIES,
        behaviour.ACCURACY,
        behaviour.OUTCOMES,
        behaviour.PAIRED_TESTS,
        behaviour.CHARACTERISTICS,
        behaviour.CONSISTENCY,
        behaviour.JUDGES,
        behaviour.FORMAT_NOISE,
        behaviour.WORKERS,
        probes.PROBES,
        probes.PROBE_TESTS,
        probes.PROBE_TRANSFER,
        probes.DIRECTION_COSINES,
        probes.VARIANT_PLANE,
        steering.STEERING,
        steering.STEERING_EFFECTS,
        steering.STEERING_TESTS,
        steering.STEERING_MEDIATION,
        features.AUTOENCODERS,
        features.FEATURES,
        features.FEATURE_CONTEXTS,
        behaviour.STUDY_ACCURACY,
        behaviour.STUDY_OUTCOMES,
        behaviour.STUDY_PAIRED_TESTS,
    )
}


def tables_of(rule: str) -> list[str]:
    """The names of the tables that one rule makes."""
    return [table.name for table in TABLES.values() if table.rule == rule]
