"""The language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emoprobe.config.section import Section, Text

Dtype = Literal["float32", "bfloat16", "float16"]
Auto = Literal["auto"]


class Model(Section):
    """The language model."""

    source: Text = Field(
        "smollm2-135m-instruct",
        description="`smollm2-135m-instruct` (embedded), a Hugging Face id, or a local directory "
        "(write `./name` for a relative one).",
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of a Hugging Face id; resolved once and pinned in `metadata.json`."
    )
    dtype: Dtype | Auto = Field(
        "auto",
        description="Of weights and computation; `auto`: the checkpoint's on a GPU, float32 on a CPU, where only "
        "float32 is reproducible. Decided once and kept in `model.json`.",
    )
