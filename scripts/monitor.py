"""Read along in the logs of the model servers that `make deploy` has started."""

import argparse
import contextlib

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import load_study
from server.deploy.deploy import monitor
from server.deploy.deployment import DeployedModel
from server.deploy.host import HostError


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="file of the experiment or study")
    parser.add_argument("--lines", type=int, default=20, help="lines of each log to begin with")
    parser.add_argument("--once", action="store_true", help="print these and end")
    arguments = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            settings = DeployedModel.of(load_study(arguments.config)).deploy
            monitor(settings, lines=arguments.lines, once=arguments.once)
    except (ConfigError, HostError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
