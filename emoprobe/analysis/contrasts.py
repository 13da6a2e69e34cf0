"""What is compared with what: planned contrasts, every variant with every reference, and the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emoprobe.analysis.outcomes import PRIMARY_MEASURE, family_prefix
from emoprobe.config.section import is_format

Family = Literal["planned", "primary", "secondary"]
PLANNED: Family = "planned"
# The contrast of every experiment that has both, where `analysis.contrasts` names none.
DEFAULT_CONTRASTS: PlannedSides = [["negative", "positive"]]
PlannedSides = Sequence[Sequence[str | Sequence[str]]]


@dataclass(frozen=True)
class Contrast:
    """One side against another, each a variant or the mean of several.

    `primary` where a tone is compared with the primary reference. `variant` and `reference` name the sides.
    """

    variant: str
    reference: str
    primary: bool
    planned: bool = False
    variants: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for side, name in (("variants", self.variant), ("references", self.reference)):
            if not getattr(self, side):
                object.__setattr__(self, side, (name,))

    @property
    def kind(self) -> Family:
        """Family of this contrast by what is compared."""
        return PLANNED if self.planned else "primary" if self.primary else "secondary"

    def family(self, measure: str) -> str:
        """The family that a test of this contrast is corrected in.

        Of accuracies the strict one alone is more than secondary; each other grader, and survival, has families of its
        own.
        """
        if prefix := family_prefix(measure):
            return prefix + self.kind
        return self.kind if measure == PRIMARY_MEASURE else "secondary"

    def __str__(self) -> str:
        return f"{self.variant}-{self.reference}"


def contrasts_of(
    names: Sequence[str],
    references: Sequence[str],
    valences: Mapping[str, Any] | None = None,
    planned: PlannedSides | None = None,
) -> list[Contrast]:
    """Every comparison: the planned ones, those with the primary reference (the last one), all others.

    Formats of the prompt are no tones, see `emoprobe.analysis.format_noise`.

    Args:
        names: the variants, in whose order tones are compared.
        references: as `references_of` returns them.
        valences: of the variants, where they have one; None: planned contrasts are left out.
        planned: `analysis.contrasts`.
    """
    first = [] if valences is None else planned_contrasts(names, valences, planned)
    if not references:
        return first
    tones = [name for name in names if name not in references and not is_format(name)]
    contrasts = [Contrast(tone, references[-1], True) for tone in tones]
    for place, reference in enumerate(references[:-1]):
        contrasts += [Contrast(tone, reference, False) for tone in tones]
        contrasts += [Contrast(later, reference, False) for later in references[place + 1 :]]
    # A comparison that is planned is tested in that family alone.
    there = {str(contrast) for contrast in first}
    return [*first, *(contrast for contrast in contrasts if str(contrast) not in there)]


def planned_contrasts(
    names: Sequence[str], valences: Mapping[str, Any], planned: PlannedSides | None = None
) -> list[Contrast]:
    """The planned contrasts whose sides are there.

    Args:
        names: the variants.
        valences: of the variants; a side that is no variant can be a valence, and stands for all variants of it.
        planned: pairs of sides, each a variant, a valence, or a list of variants; None: negative and positive.
    """
    contrasts = []
    for sides in DEFAULT_CONTRASTS if planned is None else planned:
        members = [_members(side, names, valences) for side in sides]
        if all(members):
            label, other = ("+".join(side) if not isinstance(side, str) else side for side in sides)
            contrasts.append(Contrast(label, other, False, True, *members))
    return contrasts


def _members(side: str | Sequence[str], names: Sequence[str], valences: Mapping[str, Any]) -> tuple[str, ...]:
    """The variants of a side; empty where one of them is missing."""
    if not isinstance(side, str):
        return tuple(side) if set(side) <= set(names) else ()
    if side in names:
        return (side,)
    return tuple(name for name in names if str(valences.get(name)) == side)
