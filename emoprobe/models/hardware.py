"""What a machine computes on: its GPUs as NVIDIA's driver tells them, else its processor."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
# vLLM's batch-invariant kernels need this compute capability.
BATCH_INVARIANT = (8, 0)
JOINED = " + "


@dataclass(frozen=True)
class Gpu:
    """A GPU: its index and its UUID, either of which names it, its model, its memory in GB, its compute capability."""

    index: str
    uuid: str
    name: str
    memory_gb: float
    capability: tuple[int, int]

    def has_one_of(self, ids: list[str]) -> bool:
        """Return whether one of these names it, as in CUDA_VISIBLE_DEVICES: its index, or the beginning of its UUID."""
        return any(name == self.index or (name.startswith("GPU-") and self.uuid.startswith(name)) for name in ids)

    @property
    def batch_invariant(self) -> bool:
        """Whether vLLM's answers on it can be independent of what else is in the batch."""
        return self.capability >= BATCH_INVARIANT

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor})"


def parse_gpus(listing: str) -> list[Gpu]:
    """GPUs from the output of `QUERY`; lines that tell of none are passed over."""
    gpus = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5 and re.fullmatch(r"\d+\.\d+", fields[4]) and re.fullmatch(r"\d+(\.\d+)?", fields[3]):
            index, uuid, name, memory, capability = fields
            major, _, minor = capability.partition(".")
            gpus.append(Gpu(index, uuid, name, round(float(memory) * 2**20 / 1e9, 1), (int(major), int(minor))))
    return gpus


@cache
def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine; none without a driver."""
    try:
        listing = subprocess.run(QUERY, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(listing.stdout) if listing.returncode == 0 else []


# Prints what PyTorch is built for, without importing it.
_BUILD = """
import importlib.util, os, runpy
spec = importlib.util.find_spec("torch")
print("none" if spec is None else runpy.run_path(os.path.dirname(spec.origin) + "/version.py").get("cuda") or "cpu")
"""


@cache
def torch_build(python: str, search_path: str = "") -> str:
    """Return the CUDA version that an interpreter's PyTorch is built for.

    Args:
        python: the interpreter.
        search_path: PYTHONPATH.

    Returns:
        Such as `13.0`; `cpu` for a build without CUDA, `none` where PyTorch is not installed, empty where the
        interpreter does not answer.
    """
    try:
        answer = subprocess.run(
            [python, "-c", _BUILD],
            env={**os.environ, "PYTHONPATH": search_path},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def why_without_gpu(python: str, search_path: str = "") -> str:
    """Return why servers of an interpreter cannot use a GPU, and what to do; empty where nothing is known against it.

    See `torch_build` for the arguments.
    """
    build = torch_build(python, search_path)
    if build not in ("cpu", "none"):
        return ""
    what = "PyTorch for CPUs" if build == "cpu" else "no PyTorch"
    return (
        f"the server has a GPU, but its environment ({python}) has {what}; install envs/cuda.txt with "
        "`make HARDWARE=cuda env` and run with `make HARDWARE=cuda run`"
    )


def capability_of(hardware: str) -> tuple[int, int] | None:
    """The least compute capability that a description names; None where it names none."""
    capabilities = [
        (int(major), int(minor)) for major, minor in re.findall(r"compute capability (\d+)\.(\d+)", hardware)
    ]
    return min(capabilities, default=None)


def processor() -> str:
    """The name of the processor of this machine."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"CPU {named[1].strip() if named else os.uname().machine}"


def described(ids: list[str]) -> str:
    """Describe the hardware of a server with these GPUs of this machine; the processor where it has none.

    Different models are each named once, joined by ` + `.
    """
    if not ids:
        return processor()
    names = [str(gpu) for gpu in gpus() if gpu.has_one_of(ids)]
    return JOINED.join(dict.fromkeys(names)) or "unknown GPU"


def models_without_batch_invariance(description: str) -> list[str]:
    """The models in a description, of this machine or another, that vLLM's batch-invariant kernels do not run on."""
    return [name for name in description.split(JOINED) if (capability_of(name) or BATCH_INVARIANT) < BATCH_INVARIANT]


def without_batch_invariance(ids: list[str]) -> list[str]:
    """Those of some GPUs of this machine that vLLM's batch-invariant kernels do not run on, each model once."""
    return models_without_batch_invariance(described(ids))


def visible(chosen: str | None) -> list[str]:
    """The GPUs of this machine that a value of CUDA_VISIBLE_DEVICES allows; None, no such variable: all of them.

    As for CUDA, the list ends before the first name of no GPU, such as -1, or SLURM's NoDevFiles.
    """
    if chosen is not None:
        names = (name.strip() for name in chosen.split(","))
        return list(takewhile(lambda name: re.fullmatch(r"\d+|(GPU|MIG)-.+", name) is not None, names))
    return [gpu.index for gpu in gpus()]


def machine_memory() -> int:
    """Return the bytes of memory that processes of this machine, or of its container, may use."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory
