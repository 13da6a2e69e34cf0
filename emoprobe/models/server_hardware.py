"""Hardware that the servers of an experiment run on, as far as it is known here: not the machine that plans."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from emoprobe.config.experiment import Config
from emoprobe.models import hardware


@dataclass(frozen=True)
class ServerHardware:
    """Hardware of the servers.

    Attributes:
        kind: `cpu` or `gpu`; None where nothing says it.
        memory: GB of each GPU that the servers of this machine share; empty where it is not known.
        capability: the least compute capability of the GPUs; None where it is not known.
        job_gpus: GPUs of one SLURM job, which holds one server.
    """

    kind: Literal["cpu", "gpu"] | None
    memory: tuple[float, ...] = ()
    capability: tuple[int, int] | None = None
    job_gpus: int | None = None

    @classmethod
    def of(cls, config: Config, *, started: bool = False) -> ServerHardware:
        """Return the hardware of the servers that generate.

        Args:
            config: the experiment.
            started: of the servers that the workflow starts, though others may generate.
        """
        workers = config.workers
        endpoints = workers.endpoints_of(config.generation.backend)
        if endpoints and not started:
            named = [workers.hardware[url] for url in endpoints if url in workers.hardware]
            if not named:
                return cls(None)
            capabilities = [found for name in named if (found := hardware.capability_of(name)) is not None]
            cpu = all(name.startswith("CPU ") for name in named)
            return cls("cpu" if cpu else "gpu", capability=min(capabilities, default=None))
        if config.deploy.backend is not None:
            memory = () if config.deploy.min_vram is None else (float(config.deploy.min_vram),) * workers.count
            return cls("gpu" if memory or config.deploy.backend == "skypilot" else None, memory)
        if workers.slurm:
            gpus = min(shape.gpus for shape in workers.slurm)
            return cls("gpu" if gpus else "cpu", job_gpus=gpus or None)
        return cls.of_this_machine()

    @classmethod
    def of_this_machine(cls) -> ServerHardware:
        """Return what servers of this machine run on: the GPUs that CUDA_VISIBLE_DEVICES allows, else the processor."""
        ids = hardware.visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
        gpus = [gpu for gpu in hardware.gpus() if gpu.has_one_of(ids)]
        if not gpus:
            return cls("gpu" if ids and hardware.gpus() else "cpu")
        return cls("gpu", tuple(gpu.memory_gb for gpu in gpus), min(gpu.capability for gpu in gpus))
