"""End the model servers that `make deploy` has started, and remove what it has put on their machine."""

import argparse

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import load_study
from server.deploy.deploy import undeploy
from server.deploy.deployment import DeployedModel
from server.deploy.host import HostError


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="file of the experiment or study")
    parser.add_argument(
        "--keep", action="store_true", help="leave code, environment and models there for the next time"
    )
    parser.add_argument("--forget", action="store_true", help="forget a machine that cannot be reached any more")
    arguments = parser.parse_args()
    try:
        settings = DeployedModel.of(load_study(arguments.config)).deploy
        print(undeploy(settings, keep=arguments.keep, forget=arguments.forget))
    except (ConfigError, HostError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
