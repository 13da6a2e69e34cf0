"""Fit linear probes on the activations of an experiment, and find the directions of its variants."""

import json
import sys

from safetensors.numpy import save

from emoprobe.analysis.probes.experiment import run_probes
from emoprobe.analysis.probes.source import folder_source
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame, read_table, write_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    table = read_table(layout.root, "trajectories")
    try:
        found = run_probes(table, folder_source(layout, table), config)
    except ActivationError as error:
        sys.exit(str(error))
    directions = found.directions
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
        ("probe_tests", found.tests),
        ("variant_plane", directions.plane),
        ("probe_transfer", found.transfer),
        ("probes", found.probes),
    ):
        write_table(layout, name, frame(TABLES[name], rows))


if __name__ == "__main__":
    main()
