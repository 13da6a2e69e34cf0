"""One activation folder: `activations.safetensors`, one tensor a hook point, and `metadata.json`.

A tensor has the shape (n_layers, n_positions, d). The metadata names its layers, positions and tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from emoprobe.results import atomic
from emoprobe.results.layout import ACTIVATION_FILES
from emoprobe.results.record import DamagedError, OpenRecord, Record

TENSORS, METADATA = ACTIVATION_FILES
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}  # of safetensors
TokenSpan = tuple[int, int]


class ActivationError(ValueError):
    """Activations that are missing, damaged, or do not hold what was asked for."""


class StoredPosition(OpenRecord):
    """A captured position: the mean over the tokens of `span` (half-open, of one token for a single one).

    `empty` says that the part it is named after has no tokens, so that a neighbour stands in for it. Another program
    may leave out name and span.
    """

    name: str = ""
    span: TokenSpan | None = None
    empty: bool = False


class TokenPosition(StoredPosition):
    """A position by its name, with the tokens that it is captured at."""

    name: str
    span: TokenSpan


class TokenSpans(Record):
    """Half-open token spans of the parts of a conversation; null where a part is missing or empty.

    `response` begins where the prompt ends; its length is 0 for a prompt alone. `thought` lies in it. `turns` are the
    answers of a conversation of several turns, by the number of the user's turn: the last one is `response`, the others
    lie in the prompt. Records leave out `thought` and `turns` where there are none.
    """

    system: TokenSpan | None = None
    prefix: TokenSpan | None = None
    question: TokenSpan | None = None
    response: TokenSpan
    thought: TokenSpan | None = None
    turns: dict[int, TokenSpan | None] | None = None

    def values(self) -> dict[str, Any]:
        """Plain values in the order of the fields."""
        optional = ("thought", "turns")
        return {name: value for name, value in super().values().items() if value is not None or name not in optional}


class StoredTensors(Record):
    """Location of a tensor file in object storage: `length` bytes from `offset` on in the object at `uri`."""

    uri: str
    offset: int
    length: int


class ActivationMetadata(OpenRecord):
    """`metadata.json` of an activation folder. `layers` and `positions` name the tensors' first two dimensions.

    `error` says why there are no activations: then no layer, hook point or position is listed, and the file holds no
    tensor. `stored` says where the tensors are, once they are in object storage and no longer here. What another
    program left out is empty here.
    """

    request_id: str | None = None
    model: str | None = None
    model_dtype: str | None = None
    dtype: str = ""
    layers: list[int] = Field(default_factory=list)
    hook_points: list[str] = Field(default_factory=list)
    positions: Literal["all"] | list[StoredPosition] = Field(default_factory=list)
    token_ids: list[int] = Field(default_factory=list)
    spans: TokenSpans | None = None
    shapes: dict[str, list[int]] = Field(default_factory=dict)
    sha256: str = ""
    bytes: int = 0
    error: str | None = None
    stored: StoredTensors | None = None

    @field_validator("shapes", mode="before")
    @classmethod
    def _known(cls, shapes: Any) -> Any:
        return {point: shape for point, shape in shapes.items() if shape} if isinstance(shapes, dict) else shapes

    @field_validator("spans", mode="before")
    @classmethod
    def _whole(cls, spans: Any) -> Any:
        return None if isinstance(spans, dict) and spans.get("response") is None else spans

    @property
    def n_positions(self) -> int:
        """Size of the tensors' second dimension."""
        return len(self.token_ids) if self.positions == "all" else len(self.positions)

    @property
    def position_names(self) -> list[str]:
        """Names of the captured positions; empty where every token was captured."""
        return [] if self.positions == "all" else [position.name for position in self.positions]


@dataclass(frozen=True)
class ActivationFolder:
    """A folder and what its metadata says. One that is not `here` is in object storage alone."""

    path: Path
    metadata: ActivationMetadata
    here: bool = True

    @property
    def tensors(self) -> Path:
        """The file with one tensor a hook point."""
        return self.path / TENSORS

    @classmethod
    def write_failure(
        cls, path: Path, error: str, request_id: str | None = None, token_ids: list[int] | None = None
    ) -> Self:
        """Write the folder of a trajectory that has no activations: no tensor, and metadata that say why.

        Args:
            path: the folder.
            error: why there are none.
            request_id: the capture's.
            token_ids: the trajectory's tokens, where there is one that no server captured.

        Raises:
            OSError: it cannot be written.
        """
        from safetensors.numpy import save  # it brings NumPy, which the pool does without

        content = save({})
        metadata = ActivationMetadata(
            request_id=request_id,
            dtype="float32",
            layers=[],
            hook_points=[],
            positions=[],
            token_ids=token_ids or [],
            shapes={},
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            error=error,
        )
        written = metadata.model_dump(mode="json", exclude={"stored"})
        with atomic.directory(path, ACTIVATION_FILES) as folder:
            (folder / TENSORS).write_bytes(content)
            (folder / METADATA).write_text(atomic.to_json(written), encoding="utf-8")
        return cls(path, metadata)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a folder's metadata; its tensors are read when they are asked for.

        Raises:
            ActivationError: it is missing or damaged.
        """
        try:
            metadata = ActivationMetadata.read_file(path / METADATA)
        except DamagedError as error:
            raise ActivationError(str(error).replace("delete it and", "delete its folder and")) from None
        return cls(path, metadata if metadata.error is not None else _completed(path, metadata))


def _completed(path: Path, metadata: ActivationMetadata) -> ActivationMetadata:
    """Metadata with what the tensors' file says of itself; where that is not enough, `error` says what is missing."""
    missing = [field for field in ("layers", "positions") if not getattr(metadata, field)]
    if metadata.positions == "all" and not metadata.token_ids:
        missing.append("token_ids")
    if missing:
        return metadata.model_copy(update={"error": f"{path / METADATA} does not say {' and '.join(missing)}"})
    if metadata.hook_points and metadata.dtype and metadata.shapes.keys() >= set(metadata.hook_points):
        return metadata
    try:
        with open(path / TENSORS, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = {name: list(entry["shape"]) for name, entry in tensors.items()}
        dtypes = {DTYPES.get(entry["dtype"], entry["dtype"]) for entry in tensors.values()}
    except (OSError, ValueError, KeyError, AttributeError, MemoryError) as error:
        raise ActivationError(f"{path / TENSORS} is damaged ({error}); delete its folder and run again") from None
    return metadata.model_copy(
        update={
            "shapes": shapes | metadata.shapes,
            "hook_points": metadata.hook_points or list(shapes),
            "dtype": metadata.dtype or ", ".join(sorted(dtypes)),
        }
    )
