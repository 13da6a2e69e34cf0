"""One figure of a simulation beside what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    """

    what: Literal["false", "told", "covered", "described"]
    kind: str
    world: str
    runs: int
    share: float
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the share is within its limit."""
        if self.limit is None:
            return True
        return self.share <= self.limit + 1e-9 if self.what == "false" else self.share >= self.limit - 1e-9

    def __str__(self) -> str:
        mark = " " if self.holds else "!"
        limit = "" if self.limit is None else f"(limit {self.limit:.3f})"
        return f"{mark} {self.what:9} {self.kind:28} {self.share:.3f} {limit:13} {self.runs:6}  {self.world}"
