"""From the table of steered trajectories to what steering did."""

from __future__ import annotations

from emoprobe.analysis.steering.effect_grid import Limits
from emoprobe.analysis.steering.fitted_texts import fitted_texts
from emoprobe.analysis.steering.tables import analyze
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table, write_table


def analyze_steering(config: Config, layout: Layout) -> None:
    """Write the tables that follow from the table `steering`, beside those of the unsteered trajectories."""
    coherence = config.steering.coherence
    steering, trajectories = read_table(layout.root, "steering"), read_table(layout.root, "trajectories")
    # A question that comes under several ids is one unit.
    questions = trajectories.drop_duplicates("sample_id").set_index("sample_id")["question"]
    tables = analyze(
        steering.assign(question=steering["sample_id"].map(questions)),
        Limits(coherence.max_perplexity, coherence.max_repetition),
        fitted_texts(layout, trajectories, steering["direction"].unique()),
        trajectories,
        read_table(layout.root, "paired_tests"),
        config.analysis.references,
    )
    for name, table in tables.items():
        write_table(layout, name, table)
