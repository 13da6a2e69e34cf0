"""One sentence of a report, with the numbers it follows from: an entry of `statements` in `report.json`."""

from __future__ import annotations

from enum import StrEnum

from emoprobe.results.record import Record


class Verdict(StrEnum):
    """The verdict of a statement; `emoprobe.report.verdicts` says what each means."""

    DIFFERENT = "different"
    EQUIVALENT = "equivalent"
    DIFFERENT_HERE = "different_here"
    EQUIVALENT_HERE = "equivalent_here"
    UNDECIDED = "undecided"
    FOUND = "found"
    NOT_FOUND = "not_found"
    NOT_SEPARABLE = "not_separable"
    NOTE = "note"


class Statement(Record):
    """A sentence, its subject and its verdict.

    `about` is `accuracy:VARIANT-REFERENCE` (in a study `accuracy:EXPERIMENT/VARIANT-REFERENCE`), `p_gold:…` likewise,
    `probe:TARGET`, `steering:DIRECTION`, `mediation:DIRECTION`, `feature:TONE`, `feature:autoencoders` or `data:…`.
    `estimate`, with its 95 % interval from `low` to `high`, agrees with `p`, which is that of the verdict: nothing is
    `different` or `found` whose interval includes 0. Of accuracies one method gives all of them, with `p` corrected
    over the family; of probes `p` is the largest of those of the permutations and of the interval. Numbers are null
    where there are none.
    """

    about: str
    verdict: Verdict
    text: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None
