"""What the pool asks SLURM for: a job of a shape, and what that job starts."""

from __future__ import annotations

import secrets
import shlex
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoprobe.config.execution.slurm import SlurmShape
from server import supervisor


@dataclass(frozen=True)
class JobCommand:
    """What a job starts: arguments, of which `{host}` and `{port}` are filled in there, and the whole environment.

    `cache` is the folder for what servers compile; `batch_invariant` is added to the environment where all GPUs of the
    job have batch invariance.
    """

    line: list[str]
    env: dict[str, str]
    cache: Path
    batch_invariant: dict[str, str] = field(default_factory=dict)


def job_file(command: JobCommand, shape: SlurmShape, lease: float) -> dict[str, Any]:
    """The content of `job.json`, with a new nonce.

    Args:
        command: what the job starts.
        shape: what it has asked for.
        lease: seconds without a sign of the pool after which it ends itself.
    """
    return {
        "command": command.line,
        "env": command.env,
        "batch_invariant": command.batch_invariant,
        "cache": str(command.cache),
        "cpus": shape.cpus,
        "gpus": shape.gpus,
        "nonce": secrets.token_hex(16),
        "pool_host": socket.gethostname(),
        "lease_seconds": lease,
    }


def job_script(folder: Path) -> str:
    """The script of the job whose folder this is."""
    return f"#!/bin/sh\nexec {shlex.join([sys.executable, '-I', '-S', supervisor.__file__, str(folder)])}\n"


def sbatch_options(shape: SlurmShape, log_path: Path) -> list[str]:
    """The options of sbatch for a job of a shape. Nothing in them is secret: everybody can read them."""
    output = str(log_path).replace("%", "%%")
    options = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={shape.cpus}", f"--mem={shape.memory}"]
    options += [f"--time={shape.time}", f"--output={output}", "--open-mode=append", "--chdir=/"]
    for name in ("partition", "gres", "constraint"):
        value = getattr(shape, name)
        options += [f"--{name}={value}"] if value is not None else []
    return [*options, *shape.extra]
