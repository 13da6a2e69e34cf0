"""What is concluded from the tables, and how sure one must be."""

from __future__ import annotations

from pydantic import Field, field_validator

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
    token_tolerance: float = Field(
        0.15,
        ge=0.0,
        lt=1.0,
        description="How far the mean tokens of a variant's texts may be from the primary reference's, as a share.",
    )

    @field_validator("references")
    @classmethod
    def _references(cls, references: list[str] | None) -> list[str] | None:
        if references is not None and (not references or len(set(references)) < len(references)):
            raise ValueError("must name at least one variant, and none twice")
        return references
