"""Start the pool unless it runs: the slow path of the first client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from server.pool.address import pool_status, private_folder, search_path

START_SECONDS = 120.0


def main() -> int:
    """Command line: ADDRESS PLAN RESULTS DIRECTORY OWNER. The caller holds the lock that lets one start at a time."""
    path, *rest = sys.argv[1:]
    private_folder(Path(path).parent)
    log_path = Path(f"{path}.log")
    with open(log_path, "wb") as log:
        pool = subprocess.Popen(
            [sys.executable, "-m", "server.pool", path, *rest],
            cwd="/",
            env={**os.environ, "PYTHONPATH": search_path(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = pool_status(Path(path))
        if status is not None and status["pid"] == pool.pid:
            return 0
        if pool.poll() is not None:
            tail = log_path.read_text(errors="replace")[-2000:]
            sys.stderr.write(f"The pool ended while it started (exit status {pool.returncode}):\n{tail}\n")
            return 1
        time.sleep(0.02)
    pool.kill()
    sys.stderr.write(f"The pool did not start within {START_SECONDS:.0f} s; see {log_path}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
