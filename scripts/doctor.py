"""Check this machine before a run, one line a check: `ok …`, or what to do. Exit status 1 where something is wrong."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import Study, load_study
from emoprobe.results.layout import RESULTS
from emoprobe.workflow.data_checks import with_own_ids
from emoprobe.workflow.doctor import Finding, examine
from emoprobe.workflow.gpu_checks import placement_lines
from emoprobe.workflow.process import hardware
from emoprobe.workflow.remembered import CHECKS
from server.deploy.deployment import follow
from server.pool.address import pool_status, private_folder
from server.pool.launch import free_port
from server.pool.launcher import LaunchError
from server.pool.run import address_path

CODE = Path(__file__).absolute().parents[1]


def findings(study: Study, results: Path = RESULTS) -> Iterator[Finding]:
    """Check the machine, and the ports and files with which workflow, pool and servers reach each other."""
    address = address_path(study.configs, CODE)
    in_use = pool_status(address) is not None
    yield from examine(study, results, CODE / "envs" / f"{hardware(study.configs.values())}.txt", in_use=in_use)
    try:
        private_folder(address.parent)
        ports = {free_port(config.workers.port) for config in study.configs.values()}
    except (LaunchError, OSError) as error:
        what = "change workers.port, or set XDG_RUNTIME_DIR to a folder of yours"
        yield Finding("ports", ok=False, text=f"{error}; {what}")
    else:
        yield Finding("ports", ok=True, text=f"{', '.join(map(str, sorted(ports)))} free; pool in {address.parent}")


def main() -> int:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="file of the experiment or study")
    parser.add_argument("--short", action="store_true", help="print only what is wrong")
    arguments = parser.parse_args()
    try:
        study = with_own_ids(follow(load_study(arguments.config)))
    except ConfigError as error:
        if arguments.short:  # Snakemake names the mistakes
            return 0
        parser.exit(2, f"{error}\n")
    wrong = 0
    for finding in findings(study):
        wrong += not finding.ok
        if not finding.ok or not arguments.short:
            print(f"doctor: {finding}" if arguments.short else finding, flush=True)
    if not arguments.short:
        for line in placement_lines(study, CHECKS):
            print(f"ok {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
