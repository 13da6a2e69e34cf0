"""Decide how vLLM and the capture server share GPUs: *together*, or *in turns*.

The figures are estimates, on the safe side: what a process needs besides weights and cache is rounded up, and a part of
every GPU stays free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from emoprobe.models.footprint import BYTES, Footprint

Sharing = Literal["together", "turns"]

GIB = 2**30
# Of each GPU: the CUDA context, libraries, buffers for communication, and vLLM's CUDA graphs.
PROCESS_BYTES, GRAPH_BYTES = GIB, GIB
# Tokens that vLLM computes at once, and those of the capture server.
STEP_TOKENS = 8192
# A server has the GPU to itself up to this share of its memory; both together stay below it as well.
ALONE = 0.9
# Requests of full length that vLLM's cache must hold where it shares a GPU, so that it does not work one by one.
LEAST_TOGETHER, LEAST_ALONE = 8, 1
STEP = 0.05  # `gpu_memory` is a multiple of this


class PlacementError(ValueError):
    """A model that does not fit on the GPUs; the message says what it needs, what there is, and what to do."""


@dataclass(frozen=True)
class ServerNeeds:
    """Requirements of the servers of an experiment.

    Attributes:
        generates: whether vLLM is needed.
        captures: whether the capture server is.
        length: tokens of the longest prompt and completion.
        requests: in flight at one server.
        batch_tokens: tokens of one pass of the capture server.
        dtype: of the computation.
        count: servers of each kind.
        points: hook points that are captured in each layer.
    """

    generates: bool
    captures: bool
    length: int
    requests: int
    batch_tokens: int
    dtype: str
    count: int = 1
    points: int = 2


@dataclass(frozen=True)
class Placement:
    """Assignment of the servers to the GPUs.

    Attributes:
        sharing: `together`, or `turns`; None where there is one kind of server.
        tensor_parallel: GPUs that one server is spread over.
        gpu_memory: share of each GPU's memory that vLLM takes.
        concurrent: requests of full length that vLLM computes at once.
        reason: why, in a clause.
    """

    sharing: Sharing | None
    tensor_parallel: int
    gpu_memory: float
    concurrent: int
    reason: str

    def __str__(self) -> str:
        """Describe the decision in a line."""
        shared = {"together": "vLLM and the capture server together on", "turns": "vLLM, then the capture server, on"}
        gpus = f"{self.tensor_parallel} GPU{'s' if self.tensor_parallel > 1 else ''} each"
        memory = f"vLLM with {self.gpu_memory:g} of the memory"
        return f"{shared.get(self.sharing or '', 'one kind of server on')} {gpus}, {memory}: {self.reason}"


def place(
    size: Footprint,
    gpus: list[float],
    needs: ServerNeeds,
    *,
    sharing: Literal["auto", "together", "turns"] = "auto",
    tensor_parallel: int | None = None,
    gpu_memory: float | None = None,
) -> Placement:
    """Decide how the servers of a model use GPUs.

    The smallest number of GPUs on which both kinds fit together is taken, else the smallest on which each fits alone.

    Args:
        size: what the model takes.
        gpus: memory of each GPU, GB (10⁹ bytes).
        needs: what is asked of the servers.
        sharing: `auto`, or what the user chose.
        tensor_parallel: GPUs of one server, where the user chose.
        gpu_memory: vLLM's share of a GPU, where the user chose.

    Raises:
        PlacementError: the model does not fit.
    """
    memory = min(gpus) * 1e9
    # Where there are more servers than GPUs, several share one.
    servers = max(1, math.ceil(needs.count / len(gpus)))
    available = memory * (gpu_memory or ALONE) / servers
    most = max(1, len(gpus) // needs.count)
    widths = [tensor_parallel] if tensor_parallel else [n for n in _powers(most) if size.divides(n)]
    both = needs.generates and needs.captures
    choices: list[Sharing] = ["together", "turns"] if sharing == "auto" else [sharing]
    for choice in choices if both else [None]:
        for width in widths:
            least = LEAST_TOGETHER if choice == "together" else LEAST_ALONE
            vllm = _generating(size, needs, width, least) if needs.generates else 0
            capture = _capturing(size, needs, width) if needs.captures else 0
            needed = vllm + capture if choice == "together" else max(vllm, capture)
            if needed <= memory * ALONE / servers and vllm <= available:
                share = gpu_memory or _share(memory, capture if choice == "together" else 0, servers)
                cache = share * memory - _generating(size, needs, width, 0) if needs.generates else 0
                # A mistake of rounding must not leave less than what was asked for.
                held = max(least, int(cache // (_cache(size, width) * needs.length))) if needs.generates else 0
                reason = _reason(choice, chosen=sharing != "auto", needed=vllm + capture, memory=memory)
                return Placement(choice, width, share, min(needs.requests, held), reason)
    raise PlacementError(_unfit(size, needs, widths, gpus, sharing))


def _generating(size: Footprint, needs: ServerNeeds, width: int, requests: int) -> float:
    """Bytes that vLLM needs on each of `width` GPUs to hold so many requests of full length in its cache."""
    values = BYTES[needs.dtype]
    pass_bytes = STEP_TOKENS * (4 * size.width + 3 * size.inner / width) * values
    logits = needs.requests * size.vocabulary * 4
    cache = requests * needs.length * _cache(size, width)
    return size.weights / width + PROCESS_BYTES + GRAPH_BYTES + pass_bytes + logits + cache


def _capturing(size: Footprint, needs: ServerNeeds, width: int) -> float:
    """Bytes that the capture server needs on each of `width` GPUs, over which its layers are spread."""
    tokens, values = max(needs.batch_tokens, needs.length), BYTES[needs.dtype]
    kept = tokens * size.layers / width * needs.points * size.width * values
    pass_bytes = tokens * (6 * size.width + 3 * size.inner) * values
    # Layers are not divided, so that one GPU may have one more than the others.
    uneven = size.loaded / size.layers if width > 1 else 0
    return size.loaded / width + uneven + PROCESS_BYTES + kept + pass_bytes


def _cache(size: Footprint, width: int) -> float:
    """Bytes of one token's cache on each of `width` GPUs; a head is not divided."""
    return size.cache / min(width, size.cache_heads)


def _share(memory: float, capture: float, servers: int) -> float:
    """Return vLLM's share of a GPU beside what the capture server needs, rounded down."""
    share = ALONE / servers - capture / memory
    return round(math.floor(share / STEP + 1e-9) * STEP, 2) or round(share, 3)


def _powers(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def _reason(choice: Sharing | None, *, chosen: bool, needed: float, memory: float) -> str:
    amount, there = f"{needed / 1e9:.1f} GB", f"the usable {memory * ALONE / 1e9:.1f} GB"
    if choice is None:
        return f"it needs {amount} of {there}"
    if chosen:
        return f"workers.gpu_sharing: {choice}; both need {amount} of {there}"
    if choice == "together":
        return f"both need {amount} of {there}"
    return f"both would need {amount} of {there}"


def _unfit(size: Footprint, needs: ServerNeeds, widths: list[int], gpus: list[float], sharing: str) -> str:
    width = widths[-1] if widths else 1
    parts = []
    if needs.generates:
        parts.append(f"vLLM needs {_generating(size, needs, width, LEAST_ALONE) / 1e9:.1f} GB")
    if needs.captures:
        parts.append(f"the capture server needs {_capturing(size, needs, width) / 1e9:.1f} GB")
    each = f"on each of {width} GPUs" if width > 1 else "on a GPU"
    forced = " with workers.gpu_sharing: together" if sharing == "together" else ""
    return (
        f"model.source: the model does not fit{forced}: {' and '.join(parts)} {each}, and there are {len(gpus)} with "
        f"{min(gpus):.1f} GB, of which {ALONE:g} is used; take more or larger GPUs, a lower workers.count, a smaller "
        "or quantised model"
    )
