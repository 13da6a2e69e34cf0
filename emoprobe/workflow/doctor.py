"""Check a machine before a run: driver, GPUs, environment, compiler, disk and clock, one line each."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.conversations.samples import captured_pairs, token_pairs
from emoprobe.models import hardware
from emoprobe.models.footprint import BYTES
from emoprobe.models.resolved import kinds_here
from emoprobe.models.settings import known_size
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.workflow.process import hardware as servers_hardware

# CUDA's major version → the oldest driver that runs it.
DRIVERS = {12: 525, 13: 580}
# CUDA 13 has no kernels for older GPUs.
LEAST_CAPABILITY = (7, 5)
FREE = 0.9  # of a GPU's memory, which the servers use
# Tokens of a prompt where every position is captured; no question has been drawn yet.
PROMPT_TOKENS = 512
ROOM = 0.95  # of the free disk, which activations may take
CLOCK_SECONDS = 2.0
MEMORY_QUERY = ["nvidia-smi", "--query-gpu=driver_version,index,memory.free", "--format=csv,noheader,nounits"]
_MISMATCHES = 4  # packages that a line names


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: of the check, such as `driver`.
        ok: whether a run can go on as it is.
        text: the state, and what to do where it is not ok.
    """

    subject: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.ok else ''}{self.subject}: {self.text}"


def examine(study: Study, results: Path, lock: Path, *, in_use: bool = False) -> Iterator[Finding]:
    """Check this machine for the experiments of a plan.

    Args:
        study: the plan.
        results: the folder with the experiments' folders.
        lock: the file of the environment's packages; need not exist.
        in_use: whether servers of this plan stand already, so that GPUs are not free.
    """
    configs = list(study.configs.values())
    here = [config for config in configs if kinds_here(config) and config.deploy.backend is None]
    local = [config for config in here if not config.workers.slurm]
    yield check_environment(here)
    yield check_versions(lock)
    yield from check_gpus(local, in_use=in_use)
    if any(config.generation.engine.compile for config in local) or servers_hardware(here) == "cuda":
        yield check_compiler()
    yield check_slurm(here)
    yield check_disk(configs, results)
    yield check_clock(results)


def check_environment(configs: list[Config]) -> Finding:
    """Check that PyTorch is built for the hardware of the servers that start from this environment."""
    kind, build = servers_hardware(configs), hardware.torch_build(sys.executable)
    if not configs:
        return Finding("environment", ok=True, text="no server starts from it")
    if kind == "cuda" and build in ("cpu", "none"):
        return Finding("environment", ok=False, text=hardware.why_without_gpu(sys.executable))
    if kind == "cpu" and build != "cpu" and (build == "none" or any("vllm" in kinds_here(each) for each in configs)):
        text = "servers have no GPU, but the environment is for CUDA" if build not in ("", "none") else "no PyTorch"
        return Finding(
            "environment", ok=False, text=f"{text}; run `make HARDWARE=cpu env`, then `make HARDWARE=cpu run`"
        )
    return Finding("environment", ok=True, text=f"PyTorch for {'CPUs' if build == 'cpu' else f'CUDA {build}'}")


def check_versions(lock: Path) -> Finding:
    """Compare the installed packages with a lock."""
    try:
        lines = lock.read_text(encoding="utf-8").split("\n")
    except OSError:
        return Finding("versions", ok=True, text="no lock beside this installation")
    locked = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    wrong = []
    for package, version in locked.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed != version:
            wrong.append(f"{package} {installed} (lock: {version})")
    if not wrong:
        return Finding("versions", ok=True, text=f"{len(locked)} packages as in {lock.name}")
    more = f" and {len(wrong) - _MISMATCHES} more" if len(wrong) > _MISMATCHES else ""
    what = f"install the lock: envs/install.sh --python {sys.executable} {lock}"
    return Finding("versions", ok=False, text=f"{', '.join(wrong[:_MISMATCHES])}{more}; {what}")


def check_gpus(configs: list[Config], *, in_use: bool) -> Iterator[Finding]:
    """Check the driver and each GPU, where servers start on this machine.

    Args:
        configs: experiments whose servers start here.
        in_use: whether servers of this plan stand already.
    """
    if not configs or shutil.which("nvidia-smi") is None:
        return
    try:
        done = subprocess.run(MEMORY_QUERY, capture_output=True, text=True, timeout=60)
        output, status = done.stdout or done.stderr, done.returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        output, status = str(error), 1
    rows = [[field.strip() for field in line.split(",")] for line in output.split("\n") if line.count(",") == 2]
    if status or not rows:
        said = output.strip().partition("\n")[0]
        yield Finding("driver", ok=False, text=f"nvidia-smi fails ({said}); repair NVIDIA's driver")
        return
    yield _driver(rows[0][0])
    free = {index: float(memory) for _, index, memory in rows if re.fullmatch(r"[\d.]+", memory)}
    visible = hardware.visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    gpus = [gpu for gpu in hardware.gpus() if gpu.has_one_of(visible)]
    if not gpus:
        text = "CUDA_VISIBLE_DEVICES names none of this machine; correct or unset it"
        yield Finding("GPUs", ok=not visible, text="none is visible, servers use CPUs" if not visible else text)
    for gpu in gpus:
        yield _gpu(gpu, free.get(gpu.index), in_use=in_use)


def _driver(version: str) -> Finding:
    cuda = hardware.torch_build(sys.executable)
    major = int(cuda.partition(".")[0]) if cuda[:1].isdigit() else 0
    least = DRIVERS.get(major, 0)
    if int(re.match(r"\d*", version)[0] or 0) < least:  # type: ignore[index]
        text = f"{version} is too old for CUDA {cuda}, which needs {least} or newer; update NVIDIA's driver"
        return Finding("driver", ok=False, text=text)
    return Finding("driver", ok=True, text=version + (f" for CUDA {cuda}" if major else ""))


def _gpu(gpu: hardware.Gpu, free_mib: float | None, *, in_use: bool) -> Finding:
    subject, total = f"GPU {gpu.index}", gpu.memory_gb
    if gpu.capability < LEAST_CAPABILITY:
        least = ".".join(map(str, LEAST_CAPABILITY))
        return Finding(subject, ok=False, text=f"{gpu}: {least} is needed; hide it with CUDA_VISIBLE_DEVICES")
    free = total if free_mib is None else free_mib * 2**20 / 1e9
    if free < FREE * total and not in_use:
        what = f"another process uses the rest; end it (see nvidia-smi), or hide GPU {gpu.index} with"
        return Finding(subject, ok=False, text=f"{gpu}: {free:.1f} of {total:.1f} GB free; {what} CUDA_VISIBLE_DEVICES")
    note = "" if gpu.batch_invariant else "; answers depend on their batch, as kernels for less than 8.0 do"
    return Finding(subject, ok=True, text=f"{gpu}, {free:.1f} of {total:.1f} GB free{note}")


def check_compiler() -> Finding:
    """Check what Triton compiles kernels with: a C compiler and the headers of Python."""
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CC") or "cc", "gcc", "clang"])), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if compiler else ["a C compiler (install gcc)"]
    missing += [] if header.is_file() else [f"{header} (install python3.11-dev)"]
    if missing:
        return Finding("compiler", ok=False, text=f"Triton needs {' and '.join(missing)}")
    return Finding("compiler", ok=True, text=f"{compiler}, {header}")


def check_slurm(configs: list[Config]) -> Finding:
    """Check for SLURM's commands where jobs hold the servers."""
    needed = any(config.workers.slurm for config in configs)
    missing = [name for name in ("sbatch", "squeue", "scancel") if needed and shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} not on the path; start the run where SLURM's commands are, or empty workers.slurm"
        return Finding("SLURM", ok=False, text=text)
    return Finding("SLURM", ok=True, text="its commands are on the path" if needed else "not used")


def check_disk(configs: Iterable[Config], results: Path) -> Finding:
    """Compare the size of the planned activations that do not exist yet with the free disk."""
    needed, unknown = 0.0, 0
    for config in configs:
        size = planned_bytes(config, Layout.of(config.experiment.name, results))
        needed, unknown = needed + (size or 0.0), unknown + (size is None)
    folder = results.absolute()
    while not folder.is_dir():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("disk", ok=False, text=f"{folder} cannot be written; choose a folder of yours")
    free = shutil.disk_usage(folder).free
    text = f"activations will take {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free in {folder}"
    text += f", without {unknown} experiments whose model is not known here yet" if unknown else ""
    if needed <= ROOM * free:
        return Finding("disk", ok=True, text=text)
    return Finding(
        "disk", ok=False, text=f"{text}; make room, or capture fewer layers, positions or samples (section capture)"
    )


def planned_bytes(config: Config, layout: Layout) -> float | None:
    """Compute the bytes of the activations that an experiment will store and has not; None for an unknown model.

    Hook points are counted with the width of the residual stream, and `all` positions with `max_tokens` and a prompt of
    512 tokens.
    """
    captured = [layout.activations(*pair) for pair in captured_pairs(config)]
    tokens = [layout.tokens(*pair) for pair in token_pairs(config)]
    if not captured and not tokens:
        return 0.0
    layers, width = known_size(config.model)
    if layers is None or width is None:
        return None
    capture, length = config.capture, PROMPT_TOKENS + config.generation.max_tokens
    rows = layers if capture.layers == "all" else len(capture.layers)
    rows *= len(capture.hook_points) * (length if capture.positions == "all" else len(capture.positions))
    each = {
        "capture": rows * width * BYTES.get(capture.dtype, 2),
        "features": length * width * BYTES.get(config.features.dtype, 2),
    }
    missing = {"capture": _missing(captured), "features": _missing(tokens)}
    return float(math.fsum(each[kind] * missing[kind] for kind in each))


def _missing(folders: list[Path]) -> int:
    return sum(not _exists(folder) for folder in folders)


def _exists(folder: Path) -> bool:
    """Return whether activations have been captured: they are in the folder, or in object storage alone."""
    if (folder / TENSORS).exists():
        return True
    try:
        return ActivationMetadata.read_file(folder / METADATA).stored is not None
    except DamagedError:
        return False


def check_clock(results: Path) -> Finding:
    """Compare the clock with the code, which is not from the future, and with the dates of files in the results."""
    code = max(path.stat().st_mtime for path in (Path(__file__), Path(__file__).parents[1] / "__init__.py"))
    if time.time() < code - CLOCK_SECONDS:
        return Finding("clock", ok=False, text=f"it shows {time.ctime()}, before the date of this code; set the clock")
    folder = results.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            ahead = os.fstat(file.fileno()).st_mtime - time.time()
    except OSError:  # the check of the disk reports it
        return Finding("clock", ok=True, text=time.ctime())
    if abs(ahead) > CLOCK_SECONDS:
        text = f"the file server of {folder} is {ahead:+.0f} s off, so files may look outdated; synchronise both clocks"
        return Finding("clock", ok=False, text=text)
    return Finding("clock", ok=True, text=f"{time.ctime()}, as in {folder}")
