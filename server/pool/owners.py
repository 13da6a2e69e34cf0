"""Processes that the pool must not outlive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

log = logging.getLogger(__name__)


class Owners:
    """Watches processes by handle, as their numbers may be used again.

    Args:
        ended: is called with the number of each process that has ended.
    """

    def __init__(self, ended: Callable[[int], None]) -> None:
        self._ended = ended
        self._handles: dict[int, int] = {}
        self._stopped: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._handles)

    def numbers(self) -> list[int]:
        """The processes that live."""
        return list(self._handles)

    def adopt(self, owner: int) -> bool:
        """Start watching a process; return False if it has already ended."""
        if owner in self._handles:
            return True
        try:
            handle = os.pidfd_open(owner)
        except ProcessLookupError:
            log.warning("owner %d is gone", owner)
            return False
        self._handles[owner] = handle
        asyncio.get_running_loop().add_reader(handle, self._died, owner)
        return True

    def stop(self, owner: int) -> None:
        """Ask a workflow, once, to start no more jobs."""
        if owner in self._handles and owner not in self._stopped:
            self._stopped.add(owner)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handles[owner], signal.SIGTERM)

    def _died(self, owner: int) -> None:
        handle = self._handles.pop(owner)
        self._stopped.discard(owner)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        log.info("owner %d ended; %d left", owner, len(self._handles))
        self._ended(owner)
