"""Fit linear probes on the activations of an experiment, and find the directions of its variants."""

import json
import sys

import pandas as pd
from safetensors.numpy import save

from emoprobe.analysis.probes.directions import COSINES, PLANE
from emoprobe.analysis.probes.experiment import PROBES, TRANSFER, run_probes
from emoprobe.analysis.probes.source import folder_source
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.tables import read_table, write_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    table = read_table(layout.table("trajectories"))
    try:
        found = run_probes(table, folder_source(layout, table), config)
    except ActivationError as error:
        sys.exit(str(error))
    directions = found.directions
    names = {"variants": directions.variants, "layers": directions.layers, "classes": directions.classes}
    metadata = {name: json.dumps(value) for name, value in names.items()}
    atomic.write_bytes(layout.directions(), save(directions.tensors, metadata=metadata))
    write_table(layout.table("direction_cosines"), pd.DataFrame(directions.cosines, columns=list(COSINES)), COSINES)
    write_table(layout.table("variant_plane"), pd.DataFrame(directions.plane, columns=list(PLANE)), PLANE)
    write_table(layout.table("probe_transfer"), pd.DataFrame(found.transfer, columns=list(TRANSFER)), TRANSFER)
    probes = pd.DataFrame(found.probes, columns=list(PROBES))
    whole = dict.fromkeys(["layer", "n", "samples", "d", "classes"], "Int64")  # a skipped target has none of these
    write_table(layout.table("probes"), probes.astype(whole), PROBES)


if __name__ == "__main__":
    main()
