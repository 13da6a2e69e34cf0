"""What a folder does not say of itself, and what is assumed instead."""

from __future__ import annotations

import pandas as pd

from emoprobe.analysis.trajectory_table import find_pairs
from emoprobe.config.experiment import Config
from emoprobe.config.section import CONTROL, FILLER
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.activations import find_pairs as find_captured
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.statement import Statement


def notes(layout: Layout, config: Config, trajectories: pd.DataFrame) -> list[Statement]:
    """Notes on what is missing, and on what does not belong to the experiment; none in a folder as a run leaves it.

    Args:
        layout: the folder.
        config: its config, whose fields that are not set are not said.
        trajectories: the table `trajectories`.
    """
    found = []
    unknown = _unknown(layout, config)
    if unknown:
        found.append(("provenance", f"The folder does not say, so it is unknown: {', '.join(unknown)}."))
    keys = zip(trajectories["variant"], trajectories["sample_id"], trajectories["draw"], strict=True)
    left = len(set(find_pairs(layout.root)) - {(variant, draw_id(sample, draw)) for variant, sample, draw in keys})
    if left:
        found.append(
            ("leftovers", f"{left} trajectories in the folder are not in its experiment.yaml and are left out.")
        )
    fault = _capture_fault(layout)
    if fault is not None:
        found.append(("activations", f"No activations can be read: {fault}."))
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
    unanswered = trajectories["failure"].isna() & trajectories["completion"].isna()
    if unanswered.any():
        found.append(
            ("answers", f"{int(unanswered.sum())} conversations hold no message of the assistant and are left out.")
        )
    ungraded = int((trajectories["correct"].isna() & trajectories["failure"].isna() & ~unanswered).sum())
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


def _capture_fault(layout: Layout) -> str | None:
    """Why there are no probes although there are activation folders; None where one can be read."""
    if layout.table("probe_tests").exists():
        return None
    error = None
    for pair in find_captured(layout):
        error = ActivationFolder.read(layout.activations(*pair)).metadata.error
        if error is None:
            return None
    return error


def _unknown(layout: Layout, config: Config) -> list[str]:
    """Parts of how the answers were made that neither metadata nor config name."""
    metadata = RunMetadata.of(layout)
    experiment, model, dataset, generation = (
        getattr(config, section).model_fields_set for section in ("experiment", "model", "dataset", "generation")
    )
    known = {
        "the model": metadata.model.id is not None or "source" in model,
        "the data set": "source" in dataset,
        "the seed": metadata.random_seed is not None or "seed" in experiment,
        "how answers were sampled": bool(metadata.sampling) or "temperature" in generation,
        "versions of the software": bool(metadata.package_versions),
    }
    return [what for what, said in known.items() if not said]
