"""What is compared with what: every variant with every reference, and the references with each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from emoprobe.config.section import CONTROL, FILLER

Family = Literal["primary", "secondary"]
# The grade of the primary family; the other measures of accuracy are secondary.
PRIMARY_MEASURE = "correct"
MEASURES = (PRIMARY_MEASURE, "lenient", "untruncated")


@dataclass(frozen=True)
class Contrast:
    """A variant against a reference; `primary` where a tone is compared with the primary reference."""

    variant: str
    reference: str
    primary: bool

    def family(self, measure: str) -> Family:
        """The family that a test of this contrast is corrected in: strict accuracy alone can be primary."""
        return "primary" if self.primary and measure == PRIMARY_MEASURE else "secondary"

    def __str__(self) -> str:
        return f"{self.variant}-{self.reference}"


def references_of(names: Iterable[str], chosen: Sequence[str] | None = None) -> list[str]:
    """The references among these variants, the primary one last.

    Args:
        names: the variants.
        chosen: `analysis.references`; None: `control` and `filler`, as far as they are there.
    """
    present = set(names)
    return [name for name in (chosen if chosen is not None else (CONTROL, FILLER)) if name in present]


def contrasts_of(names: Sequence[str], references: Sequence[str]) -> list[Contrast]:
    """Every comparison, those with the primary reference (the last one) first, in the order of the variants."""
    if not references:
        return []
    tones = [name for name in names if name not in references]
    contrasts = [Contrast(tone, references[-1], True) for tone in tones]
    for place, reference in enumerate(references[:-1]):
        contrasts += [Contrast(tone, reference, False) for tone in tones]
        contrasts += [Contrast(later, reference, False) for later in references[place + 1 :]]
    return contrasts
