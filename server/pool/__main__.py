"""Run the pool: python -m server.pool ADDRESS PLAN RESULTS DIRECTORY OWNER.

Clients start it, see `server.pool.start`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from server.pool.connections import allow_open_files
from server.pool.fleets import Fleets
from server.pool.jobs import FUNCTIONS
from server.pool.pool import Pool
from server.pool.protocol import Caller
from server.pool.run import Run

# Threads that called a tool take moments to remove its folder, once it was ended.
SECONDS_TO_CLEAN_UP = 2.0


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
    allow_open_files()
    keep_alive = max(settings.keep_alive for settings in workers)
    status = 1
    try:
        asyncio.run(Pool(Path(address_path), Fleets(), keep_alive).serve(int(owner)))
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        _exit(status)


def _exit(status: int) -> None:
    """End the process without threads that are still busy: a function of the user's may never return."""
    FUNCTIONS.shutdown(wait=False, cancel_futures=True)
    deadline = time.monotonic() + SECONDS_TO_CLEAN_UP
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    logging.shutdown()
    os._exit(status)


main()
