"""What a machine computes on: its GPUs as NVIDIA's driver tells them, else its processor."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

QUERY = ["nvidia-smi", "--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
# vLLM's batch-invariant kernels need this compute capability.
BATCH_INVARIANT = (8, 0)


@dataclass(frozen=True)
class Gpu:
    """A GPU: its index, the model's name, its memory in GB (10⁹ bytes), and its compute capability."""

    index: str
    name: str
    memory_gb: float
    capability: tuple[int, int]

    @property
    def batch_invariant(self) -> bool:
        """Whether vLLM's answers on it can be independent of what else is in the batch."""
        return self.capability >= BATCH_INVARIANT

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor})"


def parse_gpus(listing: str) -> list[Gpu]:
    """GPUs from the output of `QUERY`; lines that tell of none are passed over."""
    found = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and re.fullmatch(r"\d+\.\d+", fields[3]) and re.fullmatch(r"\d+(\.\d+)?", fields[2]):
            major, _, minor = fields[3].partition(".")
            found.append(Gpu(fields[0], fields[1], round(float(fields[2]) * 2**20 / 1e9, 1), (int(major), int(minor))))
    return found


@cache
def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine; none without a driver."""
    try:
        listing = subprocess.run(QUERY, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(listing.stdout) if listing.returncode == 0 else []


def capability_of(hardware: str) -> tuple[int, int] | None:
    """The least compute capability that a description names; None where it names none."""
    found = [(int(major), int(minor)) for major, minor in re.findall(r"compute capability (\d+)\.(\d+)", hardware)]
    return min(found, default=None)


def processor() -> str:
    """The name of the processor of this machine."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"CPU {named[1].strip() if named else os.uname().machine}"


def described(indices: list[str]) -> str:
    """What a server that has these GPUs of this machine runs on; the processor where it has none.

    Different models are each named once, joined by ` + `.
    """
    if not indices:
        return processor()
    names = [str(gpu) for gpu in gpus() if gpu.index in indices]
    return " + ".join(dict.fromkeys(names)) or "unknown GPU"


def without_batch_invariance(indices: list[str]) -> list[str]:
    """Those of some GPUs of this machine that vLLM's batch-invariant kernels do not run on, each model once."""
    return list(dict.fromkeys(str(gpu) for gpu in gpus() if gpu.index in indices and not gpu.batch_invariant))
