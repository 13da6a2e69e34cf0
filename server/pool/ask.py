"""Ask the pool for one job and wait for it.

Usage: python -IS server/pool/ask.py [options] KIND EXPERIMENT …

The exit status is 0 once the files are there; else standard error says why not. A pool is started where none answers.
The command of each job that asks the pool is this one; `snakemake --executor emoprobe` sends the same requests itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path


def main() -> int:
    """Command line; see --help."""
    code = Path(__file__).absolute().parents[2]
    sys.path.insert(0, str(code))
    from server.pool.client import PoolClient, is_alive
    from server.pool.protocol import KINDS, Access, Caller, ProtocolError, job_of

    parser = argparse.ArgumentParser(prog="ask.py", description=__doc__)
    parser.add_argument("--pool", required=True, type=Path, help="the file with the pool's address")
    parser.add_argument("--plan", required=True, help="the folder with the resolved config of each experiment")
    parser.add_argument("--results", default="results", help="the folder of the experiments' folders")
    parser.add_argument("--owner", type=int, help="the process that the pool lives for; by default this command")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that starts a pool")
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("fields", nargs="+", metavar="FIELD", help="experiment, variant, sample …, as the kind needs")
    arguments = parser.parse_args()
    try:
        job = job_of([arguments.kind, *arguments.fields])
    except ProtocolError as error:
        parser.error(str(error))
    # A command that is pasted after its workflow has ended does its job for itself.
    owner = arguments.owner if arguments.owner is not None and is_alive(arguments.owner) else os.getpid()
    caller = Caller(arguments.plan, arguments.results, os.getcwd(), owner)
    done = threading.Event()
    reasons: list[str] = []

    def answered(_: int, reason: str) -> None:
        reasons.append(reason)
        done.set()

    client = PoolClient(Access(arguments.pool, caller, arguments.python, code), answered)
    client.ask([(0, job)])
    done.wait()
    client.close()
    sys.stderr.write(reasons[0])
    return 1 if reasons[0] else 0


if __name__ == "__main__":
    sys.exit(main())
