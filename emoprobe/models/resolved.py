"""Turn each `auto` of the configuration into a value: once, for the hardware of the servers.

The values that can change a result are kept in `model.json`. Another machine that continues the results uses them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.models.footprint import Footprint
from emoprobe.models.hardware import machine_memory
from emoprobe.models.placement import ALONE, Placement, PlacementError, ServerNeeds, Sharing, place
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.settings import quantisation, read_settings
from emoprobe.models.source import ModelCard

# The defaults of version 0.2, whose results keep none.
FORMER = {
    "model.dtype": "float32",
    "capture.dtype": "float16",
    "engine.tensor_parallel": 1,
    "engine.max_model_len": 4096,
}
BFLOAT16 = (8, 0)  # compute capability
# Servers of experiments with shorter conversations are the same: a limit that nothing reaches changes nothing.
LEAST_LENGTH = 4096
SHARED_TOKENS = 4096  # of a pass of the capture server, where its memory is not its own
BESIDE = 0.45  # of a GPU whose memory is not known, beside a capture server


class ResolveError(ValueError):
    """A value of `auto` that cannot be decided, or not be kept, on this hardware; the message says why."""


def checkpoint_dtype(settings: dict[str, Any]) -> str:
    """Return the type of a checkpoint's weights by its config.json; of quantised ones, that of the computation."""
    for holder in (settings, settings.get("text_config")):
        if isinstance(holder, dict):
            named = str(holder.get("dtype") or holder.get("torch_dtype") or "").removeprefix("torch.")
            if named in ("float32", "bfloat16", "float16"):
                return named
    return "bfloat16" if quantisation(settings) else "float32"


def dtype_of(config: Config, settings: dict[str, Any], servers: ServerHardware) -> str:
    """Return the type that a model is computed in: the configured one, or what `auto` stands for.

    Args:
        config: the experiment.
        settings: the content of the model's config.json.
        servers: what the servers run on.
    """
    if config.model.dtype != "auto":
        return config.model.dtype
    if servers.kind == "cpu":
        return "float32"
    dtype = checkpoint_dtype(settings)
    if dtype == "bfloat16" and servers.capability is not None and servers.capability < BFLOAT16:
        return "float16"
    return dtype


def resolve(config: Config, directory: Path, servers: ServerHardware) -> dict[str, Any]:
    """Decide every `auto` that can change a result, by its dotted key; empty where the configuration has none.

    Args:
        config: the experiment.
        directory: of the model, with its `config.json`.
        servers: what the servers run on.

    Raises:
        PlacementError: the model does not fit on the GPUs.
    """
    found: dict[str, Any] = {}
    dtype = dtype_of(config, read_settings(directory), servers)
    if config.model.dtype == "auto":
        found["model.dtype"] = dtype
    if config.capture.dtype == "auto":
        found["capture.dtype"] = "bfloat16" if dtype == "bfloat16" else "float16"
    if config.generation.engine.tensor_parallel == "auto":
        found["engine.tensor_parallel"] = _width(config, directory, servers, dtype)
    return found


def _width(config: Config, directory: Path, servers: ServerHardware, dtype: str) -> int:
    """GPUs of one server."""
    if servers.kind != "gpu":
        return 1
    if servers.job_gpus is not None:
        size = Footprint.of(directory, dtype) if servers.job_gpus > 1 else None
        widths = [2**power for power in range(servers.job_gpus.bit_length()) if 2**power <= servers.job_gpus]
        return max((width for width in widths if size is not None and size.divides(width)), default=1)
    placement = placed(config, directory, servers, dtype)
    return 1 if placement is None else placement.tensor_parallel


def placed(
    config: Config, directory: Path, servers: ServerHardware, dtype: str, length: int | None = None
) -> Placement | None:
    """Decide how the servers of this machine use its GPUs; None without GPUs, or where memory or model is not known.

    Args:
        config: the experiment.
        directory: of the model.
        servers: what the servers run on.
        dtype: of the computation.
        length: tokens of the longest prompt and completion; None: as `max_model_len` says.

    Raises:
        PlacementError: the model does not fit.
    """
    size = Footprint.of(directory, dtype) if servers.kind == "gpu" and servers.memory else None
    if size is None:
        return None
    workers, engine = config.workers, config.generation.engine
    longest = engine.max_model_len if isinstance(engine.max_model_len, int) else LEAST_LENGTH
    if engine.max_model_len is None:
        longest = size.context or LEAST_LENGTH
    if isinstance(engine.max_model_len, str):
        longest = max(longest, 2 * config.generation.max_tokens)
    kinds = kinds_here(config)
    needs = ServerNeeds(
        generates="vllm" in kinds,
        captures="nnsight" in kinds,
        length=min(length or longest, size.context or 2**62),
        requests=workers.requests,
        batch_tokens=SHARED_TOKENS if workers.batch_tokens == "auto" else workers.batch_tokens,
        dtype=dtype,
        count=workers.count,
        points=len(config.capture.hook_points),
    )
    return place(
        size,
        list(servers.memory),
        needs,
        sharing=workers.gpu_sharing,
        tensor_parallel=engine.tensor_parallel if isinstance(engine.tensor_parallel, int) else None,
        gpu_memory=workers.gpu_memory if isinstance(workers.gpu_memory, float) else None,
    )


def memory_warning(config: Config, directory: Path, dtype: str) -> str | None:
    """Compare the memory that a model needs with that of the GPUs, or of this machine where its servers use CPUs.

    Args:
        config: the experiment.
        directory: of the model.
        dtype: of the computation.

    Returns:
        A warning where the weights of all servers together exceed the memory of this machine, else None.

    Raises:
        PlacementError: the model does not fit.
    """
    servers, kinds = ServerHardware.of(config, started=True), kinds_here(config)
    if not kinds or servers.kind is None:
        return None
    if servers.kind == "gpu":
        placed(config, directory, servers, dtype)
        return None
    size = None if config.workers.slurm or config.deploy.backend else Footprint.of(directory, dtype)
    if size is None:
        return None
    each = {"vllm": size.weights, "nnsight": size.loaded}
    largest, memory = max(each[kind] for kind in kinds), machine_memory()
    total = config.workers.count * sum(each[kind] for kind in kinds)
    if total <= memory:
        return None
    text = (
        f"model.source: the weights take {largest / 1e9:.1f} GB in {dtype}, {total / 1e9:.1f} GB in all servers of "
        f"this machine, which has {memory / 1e9:.1f} GB of memory; choose a smaller model or type, or another machine"
    )
    if largest > memory:
        raise PlacementError(text)
    return text


def kinds_here(config: Config) -> list[str]:
    """Return the kinds of server that the workflow starts: all but those that somebody else runs."""
    return [kind for kind in config.server_kinds if not config.workers.endpoints_of(kind)]


def with_placement(config: Config, directory: Path) -> Config:
    """Put what the GPUs of this machine allow in place of `workers.gpu_sharing`, `gpu_memory` and `batch_tokens`.

    A job of SLURM has its GPUs to itself; where the memory is not known, so that nothing can be decided, vLLM takes no
    more than leaves room for a capture server of the same size. `batch_tokens` stays `auto` where a capture server
    has its GPU to itself, whose memory it measures.

    Args:
        config: without an `auto` that can change a result.
        directory: of the model.

    Raises:
        PlacementError: the model does not fit.
    """
    servers, workers = ServerHardware.of(config, started=True), config.workers
    length = config.generation.engine.max_model_len
    known = length if isinstance(length, int) else None
    placement = placed(config, directory, servers, str(config.model.dtype), known)
    sharing: Sharing = "together" if workers.gpu_sharing == "auto" else workers.gpu_sharing
    if placement is not None:
        sharing = placement.sharing or "together"
    alone = servers.job_gpus is not None or len(kinds_here(config)) == 1 or sharing == "turns"
    memory = (ALONE if alone else BESIDE) if placement is None else placement.gpu_memory
    if workers.gpu_memory != "auto":
        memory = workers.gpu_memory
    values: dict[str, Any] = {"gpu_sharing": sharing, "gpu_memory": memory}
    crowded = servers.job_gpus is None and workers.count > len(servers.memory)
    if workers.batch_tokens == "auto" and (servers.kind != "gpu" or not alone or crowded):
        values["batch_tokens"] = SHARED_TOKENS
    return config.model_copy(update={"workers": workers.model_copy(update=values)})


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """Put values, by dotted key as `resolve` gives them, in place of each `auto`; what is no `auto` stays."""
    model, capture, engine = config.model, config.capture, config.generation.engine
    sections = {"model": model, "capture": capture, "engine": engine}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if getattr(sections[section], name) == "auto":
            sections[section] = sections[section].model_copy(update={name: value})
    generation = config.generation.model_copy(update={"engine": sections["engine"]})
    return config.model_copy(
        update={"model": sections["model"], "capture": sections["capture"], "generation": generation}
    )


def kept_values(root: Path) -> dict[str, Any]:
    """Return the values of `auto` that the results in a folder were made with, where they were not kept as such.

    Results of version 0.2 have none of `auto`; with the configuration that they were made with they stay up to date.
    Results that this version makes keep them in `model.json`, and this is empty.
    """
    card, described = _read(root / "model.json"), _read(root / "experiment_config.json")
    if "resolved" in card or not (card or described):
        return {}
    values = {}
    for key, former in FORMER.items():
        section, _, name = key.partition(".")
        holder = described.get("generation", {}) if section == "engine" else described
        value = holder.get(section, {}).get(name, former)
        if value == "auto":  # `model.json` is lost, and the metadata say what it became
            return {}
        values[key] = value
    return values


def as_made(config: Config, root: Path) -> Config:
    """Return a configuration as the results in a folder continue it, see `kept_values`.

    Args:
        config: the experiment.
        root: its folder.
    """
    if not any(value == "auto" for value in (config.model.dtype, config.capture.dtype, *_engine(config))):
        return config
    return with_values(config, kept_values(root))


def pinned(config: Config, card: ModelCard, directory: Path) -> Config:
    """Return a configuration without an `auto` that can change a result, by what `model.json` keeps.

    Args:
        config: the experiment.
        card: its model.
        directory: of the model.

    Raises:
        ResolveError: what is kept cannot be computed on the hardware of the servers.
    """
    servers = ServerHardware.of(config)
    values = card.resolved if card.resolved is not None else resolve(config, directory, servers)
    found = with_values(config, values)
    kept = values.get("model.dtype")
    if kept is None or config.model.dtype != "auto":
        return found
    where = f"model.dtype: the results were begun in {kept}, as model.json says, and "
    if kept == "bfloat16" and servers.capability is not None and servers.capability < BFLOAT16:
        raise ResolveError(
            f"{where}the servers' GPUs (compute capability {servers.capability[0]}.{servers.capability[1]}) have no "
            "bfloat16; continue them on GPUs from 8.0 on, or begin another experiment"
        )
    foreign = config.workers.endpoints_of(config.generation.backend)
    if foreign and servers.kind is not None:
        there = resolve(config, directory, servers).get("model.dtype")
        if there != kept:
            raise ResolveError(
                f"{where}the servers at {', '.join(foreign[:2])} compute in {there}; start them with dtype {kept}, or "
                "begin another experiment"
            )
    return found


def _engine(config: Config) -> tuple[Any, Any]:
    return config.generation.engine.tensor_parallel, config.generation.engine.max_model_len


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
