"""Draw one question from the data set of an experiment.

With --serve, draw many: each line of standard input is a JSON list of a number, the path of the configuration, the
folder of the experiment and the id of a sample; each line of the output a list of that number and why the sample could
not be drawn, empty where it was.
"""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.conversations.samples import DataError
from emoprobe.stages.samples import SampleError, SampleWriter
from scripts.arguments import exit_on


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="draw what standard input asks for")
    parser.add_argument("--config", type=Path, help="the experiment's configuration")
    parser.add_argument("--experiment", type=Path, help="folder of the experiment")
    parser.add_argument("sample", nargs="?", metavar="SAMPLE", help="the sample's id, such as sum_0001")
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    if None in (arguments.config, arguments.experiment, arguments.sample):
        parser.error("--config, --experiment and SAMPLE are required")
    with exit_on(ConfigError, DataError, SampleError):
        SampleWriter().write(arguments.config, arguments.experiment, arguments.sample)


def serve() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries that print must not answer
    writer = SampleWriter()
    for line in sys.stdin:
        number, config, folder, sample = json.loads(line)
        reason = ""
        try:
            writer.write(Path(config), Path(folder), sample)
        except (ConfigError, DataError, SampleError) as error:
            reason = f"{error}\n"
        except Exception:
            reason = f"{traceback.format_exc()}(a bug in Emoprobe)\n"
        print(json.dumps([number, reason]), file=answers, flush=True)


if __name__ == "__main__":
    main()
