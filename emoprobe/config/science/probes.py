"""The linear probes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from emoprobe.config.section import Section


class Probes(Section):
    """The linear probes."""

    targets: list[Literal["variant", "valence", "correct"]] = Field(
        ["variant", "valence", "correct"], min_length=1, description="What is read off the activations."
    )
    folds: int = Field(5, ge=2, le=100, description="Outer folds, stratified, grouped by sample.")
    inner_folds: int = Field(3, ge=2, le=100, description="Folds inside a training set that choose the strength.")
    strengths: list[float] = Field(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0],
        min_length=1,
        description="Inverse strengths of the L2 penalty (`C`) to choose from.",
    )
    permutations: int = Field(10, ge=0, description="Label permutations of the permutation baseline.")
    min_per_class: int = Field(4, ge=2, description="Samples that each class needs, or the target is skipped.")

    @field_validator("strengths")
    @classmethod
    def _strengths(cls, strengths: list[float]) -> list[float]:
        if any(strength <= 0 for strength in strengths):
            raise ValueError("every strength must be greater than 0")
        return sorted(strengths)
