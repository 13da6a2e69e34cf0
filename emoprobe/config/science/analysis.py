"""What is concluded from the tables, and how sure one must be."""

from __future__ import annotations

from pydantic import Field

from emoprobe.config.section import Section


class Analysis(Section):
    """What is compared with what, and when a difference counts."""

    references: list[str] | None = Field(
        None,
        description="Variants that the others are compared with, the primary one last; null: `control` and, where "
        "there is one, `filler`.",
    )
    margin: float = Field(
        0.10, gt=0.0, lt=1.0, description="A difference of accuracies within this on either side counts as equivalent."
    )
    bootstrap: int = Field(1000, ge=100, description="Resamples of every bootstrap interval.")
