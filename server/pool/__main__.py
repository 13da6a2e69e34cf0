"""Run the pool: python -m server.pool ADDRESS PLAN RESULTS DIRECTORY OWNER.

Clients start it, see `server.pool.start`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from server.pool.fleets import Fleets
from server.pool.pool import Pool
from server.pool.protocol import Caller
from server.pool.run import Run


def main() -> None:
    """Log where the run that asked first has its logs, then serve."""
    address_path, plan, results, directory, owner = sys.argv[1:6]
    run = Run(Caller(plan, results, directory, int(owner)))
    workers = [experiment.config.workers for experiment in run.experiments()]
    run.logs.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=run.logs / "pool.log",
        level=min(logging.getLevelNamesMapping()[settings.log_level.upper()] for settings in workers),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    # Transforms are found where the workflow was started, and beside the Snakefile.
    sys.path.insert(0, directory)
    os.umask(0o022)
    keep_alive = max(settings.keep_alive for settings in workers)
    asyncio.run(Pool(Path(address_path), Fleets(), keep_alive).serve(int(owner)))
    logging.shutdown()
    os._exit(0)  # without its threads: a function of the user's may never return


main()
