"""From activations to probes and directions."""

from __future__ import annotations

import json

from safetensors.numpy import save

from emoprobe.analysis.probes.activation_source import folder_source
from emoprobe.analysis.probes.all_probes import run_probes
from emoprobe.config.experiment import Config
from emoprobe.config.section import is_format
from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, read_table, write_table


def probe(config: Config, layout: Layout) -> None:
    """Fit every probe on the activations that are there; write the directions, then the tables.

    Raises:
        ActivationError: a folder is damaged, or none has activations.
    """
    table = read_table(layout.root, "trajectories")
    # Where one request answers and captures, there are also activations of further asks and of formats.
    wanted = (table["draw"] <= config.generation.draws) & ~table["variant"].map(is_format).astype(bool)
    table = table[wanted].reset_index(drop=True)
    findings = run_probes(table, folder_source(layout, table), config)
    directions = findings.directions
    names = {
        "variants": directions.variants,
        "reference": directions.reference,
        "layers": directions.layers,
        "classes": directions.classes,
    }
    metadata = {name: json.dumps(value) for name, value in names.items()}
    atomic.write_bytes(layout.directions(), save(directions.tensors, metadata=metadata))
    for name, rows in (
        ("direction_cosines", directions.cosines),
        ("probe_tests", findings.tests),
        ("variant_plane", directions.plane),
        ("probe_transfer", findings.transfer),
        ("probes", findings.probes),
    ):
        write_table(layout, name, frame(TABLES[name], rows))
