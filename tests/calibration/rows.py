"""One figure of a simulation beside what it may be, and the intervals that some are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Row:
    """A share of runs.

    Attributes:
        what: false: of runs with a false sentence; told: of runs that tell a planted effect; covered: of intervals
            that hold the truth; described: a share without a limit.
        kind: of sentence or interval.
        world: what was simulated.
        runs: how often.
        share: what was found.
        limit: the largest share that is allowed for `false`, the smallest for the others; None: there is none.
        width: median width of the intervals of `covered`, in the unit of what they are about.
    """

    what: Literal["false", "told", "covered", "described"]
    kind: str
    world: str
    runs: int
    share: float
    limit: float | None = None
    width: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the share is within its limit."""
        if self.limit is None:
            return True
        return self.share <= self.limit + 1e-9 if self.what == "false" else self.share >= self.limit - 1e-9

    def __str__(self) -> str:
        mark = " " if self.holds else "!"
        limit = "" if self.limit is None else f"(limit {self.limit:.3f})"
        width = "" if self.width is None else f"; median width {self.width:.3g}"
        return f"{mark} {self.what:9} {self.kind:28} {self.share:.3f} {limit:13} {self.runs:6}  {self.world}{width}"


@dataclass
class Intervals:
    """Intervals of one kind: how many hold the truth, and their widths."""

    held: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, low: float, high: float, truth: float) -> None:
        """Count an interval; rounding does not put the truth outside."""
        self.held += low - 1e-6 <= truth <= high + 1e-6
        self.widths.append(high - low)

    @property
    def share(self) -> float:
        """The share that holds the truth; there has to be one."""
        return self.held / len(self.widths)

    def row(self, kind: str, world: str, limit: float) -> Row:
        """Return the figure."""
        return Row("covered", kind, world, len(self.widths), self.share, limit, float(np.median(self.widths)))
