"""Have the C library keep the memory that a forward pass frees, for the next one."""

from __future__ import annotations

import ctypes

# From <malloc.h> of glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT, LARGEST = 128 << 20, 32 << 20  # bytes; glibc takes no more for the latter


def keep_freed_memory() -> None:
    """Take all but the largest tensors from one heap, which shrinks late; called before there are threads.

    By default tensors are mapped when they are made and unmapped when they go, and the kernel clears every page of the
    next one: up to a seventh of the time of a pass on a CPU. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, KEPT)):
            mallopt(option, value)
