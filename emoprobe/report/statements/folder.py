"""What a folder does not tell of itself, and what is assumed instead."""

from __future__ import annotations

import pandas as pd

from emoprobe.config.names import CONTROL, FILLER
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Statement


def notes(layout: Layout, trajectories: pd.DataFrame) -> list[Statement]:
    """Notes on files that are missing; none in a folder that the workflow made.

    Args:
        layout: where they would lie.
        trajectories: the table `trajectories`.
    """
    found = []
    if not layout.resolved_yaml.exists():
        found.append(
            (
                "config",
                f"There is no experiment.yaml: the references are {CONTROL} and {FILLER}, as far as they are there; "
                "neither valences are known nor which question had which text, so comparisons are about the texts "
                "used here.",
            )
        )
    if not layout.sample("any").parent.is_dir():
        found.append(
            (
                "samples",
                "There is no folder samples/: gold answers come from each sample.json, and every question counts as "
                "separate, although some may share a template.",
            )
        )
    ungraded = int((trajectories["correct"].isna() & trajectories["failure"].isna()).sum())
    if 0 < ungraded < len(trajectories):
        found.append(
            ("grades", f"{ungraded} of {len(trajectories)} answers have no known gold answer and are left out.")
        )
    if trajectories["truncated"].isna().all():
        found.append(
            (
                "finish",
                "No agent_state.json tells how an answer ended: every one counts as finished, though some may have "
                "been cut off.",
            )
        )
    return [Statement(about=f"data:{about}", verdict="note", text=text) for about, text in found]
