"""The linear probes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emoprobe.config.section import Section

ProbeTarget = Literal["variant", "valence", "correct"]


class Probes(Section):
    """The linear probes."""

    targets: list[ProbeTarget] = Field(
        ["variant", "valence", "correct"], min_length=1, description="What is read off the activations."
    )
    folds: int = Field(5, ge=3, le=100, description="Folds of questions; questions of one group stay together.")
    shrinkage: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="How far the covariance of the discriminant is drawn to a multiple of the identity; at 1 the probe "
        "is a difference of means.",
    )
    permutations: int = Field(
        199, ge=19, description="Permutations of the labels, where there are not fewer in all: then it is every one."
    )
    control_tasks: int = Field(10, ge=10, description="Control tasks that selectivity is the mean over.")
    min_per_class: int = Field(4, ge=2, description="Questions that each class needs, or the target is skipped.")
