"""The table of `docs/gpus.md`: what is decided for known models on known GPUs.

Write it again: python -m tests.emoprobe.models.placements
"""

from __future__ import annotations

from pathlib import Path

from emoprobe.config.files import parse_config
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import dtype_of, placed, resolve
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.settings import read_settings

PAGE = Path(__file__).parents[3] / "docs/gpus.md"
CONFIGS = Path(__file__).parent / "configs"
MODELS = (
    "Qwen3-0.6B", "Qwen3-8B", "Llama-3.1-8B", "Llama-3.3-70B", "Gemma-3-4B", "Gemma-3-27B", "gpt-oss-20b", "Mixtral-8x7B",
)  # fmt: skip
GPUS = {"1 × 24 GB": (25.4,), "1 × 80 GB": (85.5,), "4 × 80 GB": (85.5,) * 4}
HEAD = "| model | GPUs | sharing | tensor parallel | vLLM's memory | dtype, captured | at once | why |"


def servers(name: str) -> ServerHardware:
    """The hardware of a column."""
    return ServerHardware("gpu", GPUS[name], (9, 0))


def row(model: str, gpus: str) -> str:
    """One line of the table, with the default configuration."""
    config, directory, there = parse_config({}), CONFIGS / model, servers(gpus)
    dtype = dtype_of(config, read_settings(directory), there)
    try:
        placement = placed(config, directory, there, dtype)
    except PlacementError as error:
        return f"| {model} | {gpus} | does not fit | | | {dtype} | | {str(error).split(': ', 2)[2].split(', and')[0]} |"
    assert placement is not None
    kept = resolve(config, directory, there)["capture.dtype"]
    cells = [
        model, gpus, placement.sharing, placement.tensor_parallel, placement.gpu_memory, f"{dtype}, {kept}",
        placement.concurrent, placement.reason,
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def table() -> str:
    """The whole table."""
    rows = [row(model, gpus) for model in MODELS for gpus in GPUS]
    return "\n".join([HEAD, "| --- " * (HEAD.count("|") - 1) + "|", *rows]) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(HEAD)] + table(), encoding="utf-8")
