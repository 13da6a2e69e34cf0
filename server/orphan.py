"""Have the kernel end a process whose parent is gone."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1
# Loaded here, not in the new process: between fork and exec little is safe.
_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent(number: signal.Signals) -> None:
    """Ask for a signal to this process when its parent dies; a parent that is dead already sends none."""
    _LIBC.prctl(PR_SET_PDEATHSIG, number)
