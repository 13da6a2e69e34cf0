"""Features of a sparse autoencoder on the residual stream."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emoprobe.config.science.model import Dtype
from emoprobe.config.section import Extent, Section, Text


class Autoencoder(Section):
    """The sparse autoencoder: pretrained weights, or small autoencoders trained on the captured tokens."""

    source: Text | None = Field(
        None,
        description="Pretrained weights in SAELens' or sparsify's format: a local directory (`./NAME` or `/NAME`), "
        "or an id of the Hugging Face hub; null: train. All other keys but `folder` and `revision` are for training.",
    )
    folder: Text | None = Field(None, description="Folder inside of the source, such as `layers.15`.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the hub; null: the default branch.")
    architecture: Literal["topk", "batch_topk"] = Field(
        "batch_topk", description="`topk`: k features a token; `batch_topk`: k on average (Bussmann et al. 2024)."
    )
    width: int = Field(2048, ge=2, le=1 << 20, description="Number of features.")
    k: int = Field(16, ge=1, description="Features that are active on a token, on average with `batch_topk`.")
    steps: int = Field(1000, ge=1, description="Training steps (Adam).")
    batch_tokens: int = Field(1024, ge=2, description="Tokens in a training step.")
    learning_rate: float = Field(
        1e-3, gt=0.0, le=1.0, description="Learning rate of Adam; it decays to 0 over the last fifth of the steps."
    )
    seeds: Annotated[int, Extent] = Field(
        3,
        ge=3,
        le=100,
        description="Number of autoencoders that differ only in their seed; features are numbered as in the first.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Autoencoder:
        if self.k >= self.width:
            raise ValueError(f"k = {self.k} must be smaller than width = {self.width}")
        if self.source is None and (self.folder is not None or self.revision is not None):
            raise ValueError("folder and revision are for a source")
        return self


class Features(Section):
    """Search for autoencoder features that differ between the tones and their reference."""

    enabled: bool = Field(
        False, description="Whether to capture every token at one layer and test autoencoder features there."
    )
    samples: Annotated[int | None, Extent] = Field(
        None, ge=1, description="Number of questions, from the first; null: all."
    )
    layer: int | None = Field(
        None,
        description="Layer whose output (`resid_post`) the autoencoder reads; negative indices count from the end.",
    )
    dtype: Dtype = Field("float16", description="Data type of the stored activations.")
    autoencoder: Autoencoder = Field(default_factory=lambda: Autoencoder(), description="The autoencoder.")
    chosen: int = Field(
        10,
        ge=1,
        le=1000,
        description="Candidate features for each tone and part, selected on one half of the questions.",
    )
    contexts: int = Field(5, ge=1, le=100, description="Example contexts shown for a feature.")
    evaluated: int = Field(64, ge=1, description="Number of held-out trajectories for the cross-entropy.")

    @model_validator(mode="after")
    def _layer(self) -> Features:
        if self.enabled and self.layer is None:
            raise ValueError("layer must be given where features are enabled")
        return self

    @property
    def autoencoders(self) -> list[str]:
        """Names of the autoencoders that are trained; none with pretrained weights."""
        if not self.enabled or self.autoencoder.source is not None:
            return []
        return [f"seed-{number}" for number in range(1, self.autoencoder.seeds + 1)]
