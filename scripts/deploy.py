"""Start the model servers of an experiment or study on another machine, as its section `deploy` says."""

import argparse
import sys

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import load_study
from server.deploy.deploy import deploy
from server.deploy.deployment import DeployedModel
from server.deploy.host import HostError


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="file of the experiment or study")
    path = parser.parse_args().config
    try:
        deploy(DeployedModel.of(load_study(path)))
    except (ConfigError, HostError) as error:
        parser.exit(1, f"{error}\n")
    print(
        f"Runs with --configfile {path} use these servers now; make undeploy CONFIG={path} ends them.", file=sys.stderr
    )


if __name__ == "__main__":
    main()
