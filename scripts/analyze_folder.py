"""Make tables, probes, figures and a report inside any folder of trajectories, whoever made it: no model, no server."""

import argparse
import sys
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.graders.registry import GraderError
from emoprobe.report.closing import summary_text
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.record import DamagedError
from emoprobe.stages.folder import NothingThereError, analyze_folder


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="holds VARIANT/SAMPLE/trajectory.jsonl, experiment.yaml, activations/"
    )
    try:
        layout = analyze_folder(parser.parse_args().folder)
    except (NothingThereError, ConfigError, DamagedError, ActivationError, GraderError) as error:
        sys.exit(str(error))
    print(summary_text(layout.report))


if __name__ == "__main__":
    main()
