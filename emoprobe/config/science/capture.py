"""Selection of the activations to capture."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from emoprobe.config.science.model import Auto, Dtype
from emoprobe.config.section import Extent, Section

NamedPosition = Literal[
    "last_prompt",
    "prefix_mean",
    "response_first",
    "response_mean",
    "response_last",
    "thinking_mean",
    "thinking_last",
]
# Those of the thought before the answer.
THOUGHT_POSITIONS = frozenset({"thinking_mean", "thinking_last"})
# `turn2.response_mean`: a position of the answer to one turn of the user, by its number.
TURN_POSITIONS = ("last_prompt", "response_first", "response_mean", "response_last")
_TURN_POSITION = re.compile(rf"turn([1-9]\d{{0,3}})\.({'|'.join(TURN_POSITIONS)})")
# Parts of the residual stream, which mean the same in every family of models, in the order of a forward pass.
RESID_POST = "resid_post"  # where directions are fitted and autoencoders read
STREAM_POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", RESID_POST)
MODULE_PATH = r"^(?:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)?\.?(?:input|output)$"


def turn_position(name: int | str) -> tuple[int, str] | None:
    """Return the turn and the position within it of a name such as `turn2.response_mean`; None for any other."""
    match = _TURN_POSITION.fullmatch(str(name))
    return None if match is None else (int(match[1]), match[2])


class Capture(Section):
    """Selection of the activations to capture: layers, hook points and token positions."""

    enabled: bool = Field(True, description="false: no activations, no probes.")
    samples: Annotated[int | None, Extent] = Field(
        None, ge=1, description="Number of questions, from the first, whose activations are captured; null: all."
    )
    layers: Literal["all"] | list[int] = Field(
        "all", description="`all`, or a list; negative indices count from the end."
    )
    hook_points: list[str] = Field(
        ["input_layernorm.output", "post_attention_layernorm.output"],
        min_length=1,
        description="`resid_pre`, `attn_out`, `resid_mid`, `mlp_out`, `resid_post`, which mean the same in every "
        "model family; or a module path relative to a decoder layer plus `.input` or `.output`; `.input` and "
        "`.output` alone are those of the layer.",
    )
    positions: Literal["all"] | list[int | str] = Field(
        ["last_prompt", "prefix_mean", "response_first", "response_mean", "response_last"],
        description="`all` token positions, or a list of named positions and token indices. `thinking_mean` and "
        "`thinking_last` are for models that think. `turn2.response_mean` and the like belong to the answer to turn 2 "
        "of a scripted conversation; names without a turn belong to the last answer.",
    )
    dtype: Dtype | Auto = Field(
        "auto",
        description="Data type of the stored activations; `auto`: bfloat16 for models that compute in it, whose "
        "activations may exceed the range of float16, else float16.",
    )

    @field_validator("layers", mode="before")
    @classmethod
    def check_layers(cls, layers: Any) -> Any:
        """Accept `all` or a list of different indices.

        Raises:
            ValueError: any other value.
        """
        if layers == "all":
            return layers
        if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
            raise ValueError("must be `all` or a list of layer indices")
        if len(set(layers)) != len(layers):
            raise ValueError("must be `all` or a list of different layer indices")
        return layers

    @field_validator("hook_points")
    @classmethod
    def _hook_points(cls, hook_points: list[str]) -> list[str]:
        for point in hook_points:
            if point not in STREAM_POINTS and not re.fullmatch(MODULE_PATH, point):
                raise ValueError(
                    f"{point!r} is none of {', '.join(STREAM_POINTS)} and no module path that ends in .input or .output"
                )
        if len(set(hook_points)) != len(hook_points):
            raise ValueError("names a hook point twice")
        return hook_points

    @field_validator("positions", mode="before")
    @classmethod
    def check_positions(cls, positions: Any) -> Any:
        """Accept `all` or a list of different names and indices.

        Raises:
            ValueError: any other value.
        """
        if positions == "all":
            return positions
        names = get_args(NamedPosition)
        if (
            not isinstance(positions, list)
            or not positions
            or not all(type(position) is int or position in names or turn_position(position) for position in positions)
            or len(set(positions)) != len(positions)
        ):
            raise ValueError(
                f"must be `all` or a list of different token indices and of {', '.join(names)}, or turnN. with one of "
                f"{', '.join(TURN_POSITIONS)}"
            )
        return positions
