"""Run a module as a process that cannot outlive the one that started it.

Usage: python -m server.pool.child MODULE [ARGUMENT ...]

The kernel ends the process when its parent dies, whatever way that goes. Children that `multiprocessing` spawns
import this module again as their main module, so the same holds for them, down to the last worker of an engine.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from server.orphan import end_with_parent


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies, and for the same in every fork of this process."""
    end_with_parent(signal.SIGKILL)
    # The parent may have died before that call; then the signal never comes.
    if os.environ.get("EMOPROBE_PARENT", str(os.getppid())) != str(os.getppid()):
        os._exit(1)
    os.environ["EMOPROBE_PARENT"] = str(os.getpid())


die_with_parent()
os.register_at_fork(after_in_child=die_with_parent)

if __name__ == "__main__":
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__")
