"""Statistical analysis of the tables, and the linear probes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from emoprobe.config.section import CONTROL, FILLER, Added, Section, Text

# With fewer texts a sentence is about the texts used. From 24 on at most 5 % of claims about a tone are false where one
# text in 32 moves the accuracy by 40 points, or one in 16 by 85, in families of up to 8 tones (the worlds are in
# `tests/calibration/mixtures.py`); with 16 texts 7 % are. A kind that one text in 8 is of escapes 24 of them in 4 % of
# runs.
TONE_TEXTS = 24


def _whole_keys(looks: Any) -> Any:
    """Numbers as JSON writes them as keys."""
    if not isinstance(looks, dict):
        return looks
    return {int(key) if isinstance(key, str) and key.isdecimal() else key: value for key, value in looks.items()}


Side = Text | Annotated[list[Text], Field(min_length=1)]


class Analysis(Section):
    """Contrasts between variants, looks, and the margin of equivalence."""

    references: list[str] | None = Field(
        None,
        description="Reference variants of the contrasts, the primary one last; null: `control` and, if defined, "
        "`filler`.",
    )
    margin: float = Field(
        0.10,
        gt=0.0,
        lt=1.0,
        description="Equivalence margin: the largest difference of accuracies, in either direction, that counts "
        "as equivalent.",
    )
    contrasts: Annotated[list[Annotated[list[Side], Field(min_length=2, max_length=2)]] | None, Added] = Field(
        None,
        description="Planned contrasts, a family of their own: pairs of sides, each a variant, a valence (the mean of "
        "all its variants) or a list of variants; null: `[[negative, positive]]`.",
    )
    looks: Annotated[dict[int, float] | None, Added, BeforeValidator(_whole_keys)] = Field(
        None,
        min_length=1,
        description="Numbers of questions at which accuracies are tested, each with its share of the level, such as "
        "`{96: 0.2, 384: 0.8}`; other numbers are described and not tested. null: `dataset.samples` alone.",
    )
    token_tolerance: float = Field(
        0.15,
        ge=0.0,
        lt=1.0,
        description="Accepted relative difference between a variant's mean number of tokens and the primary "
        "reference's.",
    )

    @field_validator("looks")
    @classmethod
    def _looks(cls, looks: dict[int, float] | None) -> dict[int, float] | None:
        if looks is None:
            return looks
        if min(looks) < 1 or min(looks.values()) <= 0:
            raise ValueError("numbers of questions and weights must be above 0")
        if not math.isclose(sum(looks.values()), 1.0, abs_tol=1e-9):
            raise ValueError(f"weights must sum to 1 (sum: {sum(looks.values()):g})")
        return looks

    @field_validator("references")
    @classmethod
    def _references(cls, references: list[str] | None) -> list[str] | None:
        if references is not None and (not references or len(set(references)) < len(references)):
            raise ValueError("must name at least one variant, and none twice")
        return references


ProbeTarget = Literal["variant", "valence", "correct"]
# Of each valence, for a verdict on it: 35 ways to divide eight variants in halves, so the smallest p is 0.029.
LEAST_VARIANTS = 4


class Probes(Section):
    """Linear probes on the captured activations."""

    targets: list[ProbeTarget] = Field(
        ["variant", "valence", "correct"], min_length=1, description="Labels to predict from the activations."
    )
    folds: int = Field(
        5, ge=3, le=100, description="Cross-validation folds over questions; a group of questions is never split."
    )
    shrinkage: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="Shrinkage of the discriminant's covariance towards a multiple of the identity; at 1 the "
        "probe is a "
        "difference of means.",
    )
    permutations: int = Field(
        199, ge=19, description="Number of label permutations; all of them where there are fewer."
    )
    control_tasks: int = Field(10, ge=10, description="Number of control tasks; selectivity is the mean over them.")
    min_per_class: int = Field(
        4, ge=2, description="Minimum number of questions in each class; a target with fewer is skipped."
    )


def references_of(names: Iterable[str], chosen: Sequence[str] | None = None) -> list[str]:
    """Return the references among these variants, the primary one last.

    Args:
        names: the variants.
        chosen: `analysis.references`; None: `control` and `filler`, as far as they are there.
    """
    present = set(names)
    return [name for name in (chosen if chosen is not None else (CONTROL, FILLER)) if name in present]
