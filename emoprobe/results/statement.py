"""One sentence of a report, with the numbers it follows from: an entry of `statements` in `report.json`."""

from __future__ import annotations

from typing import Literal

from emoprobe.results.record import Record

Verdict = Literal["different", "equivalent", "undecided", "found", "not_found", "note"]


class Statement(Record):
    """What is said, about what, and how sure.

    `about` is `accuracy:VARIANT-REFERENCE`, `probe:TARGET` or `data:…`. `estimate` has its 95 % interval from `low` to
    `high`. Of an accuracy they come from the method that gives `p`; of a probe they are those of the cells that were
    chosen inside of the training sets, and `p` is that of the largest cell. Numbers are null where there are none.
    """

    about: str
    verdict: Verdict
    text: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None
