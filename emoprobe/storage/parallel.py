"""Several requests at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> list[Result]:
    """The results of a function for each item, in order, some of them worked on at once; the first error ends it.

    Threads rather than a loop, as a notebook runs one of its own.
    """
    if not items:
        return []
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def shares(items: int, requests: int) -> tuple[int, int]:
    """How many items to work on at once, and how many requests each may have in flight, for so many in all."""
    at_once = max(1, min(items, requests))
    return at_once, max(1, requests // at_once)
