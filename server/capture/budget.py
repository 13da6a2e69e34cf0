"""Memory that requests hold beside tensors: counted before anything is made, and refused where it would be too much."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from server.capture.errors import BadRequestError, BusyError

# Bytes of Python objects and of their JSON, measured, rounded up.
TOKEN = 64  # a token id, its text
LOGPROB = 700  # a token with its log-probability, text and bytes
POSITION = 2048  # a position, its span, and its entry in the metadata


class Budget:
    """Bytes that all requests together may hold.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, holder: object, size: int) -> Callable[[], object]:
        """Hold memory for an object, until what is returned is called, or the object is gone.

        Raises:
            BadRequestError: there is never so much.
            BusyError: there is not so much now.
        """
        if size > self.size:
            raise BadRequestError(
                f"this request may come to hold {size / 2**30:.1f} GiB, the server holds {self.size / 2**30:.1f} GiB "
                "(--memory-gib); ask for fewer choices, prompts, tokens, log-probabilities, positions or edits"
            )
        with self._lock:
            if self._held + size > self.size:
                raise BusyError()
            self._held += size
        return weakref.finalize(holder, self._release, size)

    def _release(self, size: int) -> None:
        with self._lock:
            self._held -= size
