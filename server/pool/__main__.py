"""Run the pool: python -m server.pool ADDRESS CONFIG DIRECTORY OWNER_PID. Clients start it, see `server.pool.start`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from server.pool.pool import Pool
from server.pool.run import Run


def main() -> None:
    """Log to the experiment of the run that asked first, then serve."""
    address_path, config_file, directory, owner = sys.argv[1:5]
    run = Run.read(config_file, directory)
    log_path = run.layout.log("pool")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=log_path,
        level=run.config.workers.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    # Transforms are found where the workflow was started, and beside the Snakefile.
    sys.path.insert(0, directory)
    os.umask(0o022)
    asyncio.run(Pool(Path(address_path)).serve(run, int(owner)))


main()
