"""SLURM jobs that run model servers."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field, field_validator

from emoprobe.config.section import Section, Text

# The pool sets these options and relies on them to track its jobs.
_OURS = (
    "--array", "--chdir", "--cluster-constraint", "--clusters", "--dependency", "--error", "--export", "--export-file",
    "--get-user-env", "--hold", "--job-name", "--no-requeue", "--ntasks", "--nodes", "--open-mode", "--output",
    "--parsable", "--requeue", "--signal", "--test-only", "--wait", "--wrap",
)  # fmt: skip
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
_GPUS = re.compile(r"(?:^|,)gpu(?::[^:,\d][^:,]*)?(?::(\d+))?(?=,|$)")
# SLURM warns a job this long before its time is up, with a minute's precision.
SHORTEST_MINUTES = 2.0


class SlurmShape(Section):
    """Resources of one kind of SLURM job. Each job runs one server."""

    changes_results: ClassVar[bool] = False

    partition: Text | None = Field(None, description="Partition; null: the cluster's default.")
    gres: Text | None = Field(None, description="Generic resources, such as `gpu:1` or `gpu:a100:2`; null: CPUs only.")
    constraint: Text | None = Field(None, description="Features that the node must have, such as `a100|h100`.")
    cpus: int = Field(4, ge=1, le=1024, description="CPUs of one job.")
    memory: str = Field("16G", pattern=r"^\d+[KMGT]?$", description="Memory of one job in SLURM's notation.")
    time: str = Field(
        "04:00:00", description="Time limit of one job, in quotes; the pool submits the next job when it is reached."
    )
    count: int = Field(1, ge=1, le=1024, description="Jobs with these resources, for each kind of server.")
    extra: list[Text] = Field(
        default_factory=list, description="Further options of `sbatch`, such as `--account=lab` or `--qos=long`."
    )

    @field_validator("time")
    @classmethod
    def _time(cls, value: str) -> str:
        limit = minutes(value)
        if limit is None:
            raise ValueError("is no time limit of SLURM; write hours:minutes:seconds or days-hours, in quotes")
        if limit < SHORTEST_MINUTES:
            raise ValueError(f"is too short: a job needs at least {SHORTEST_MINUTES:g} minutes")
        return value

    @field_validator("extra")
    @classmethod
    def _extra(cls, options: list[str]) -> list[str]:
        for option in options:
            if not re.match(r"--[a-z]", option):
                raise ValueError(f"{option!r} is no long option: write --name=value")
            if option.partition("=")[0] in _OURS:
                raise ValueError(f"{option.partition('=')[0]} is set by the pool; remove it")
        return options

    @property
    def gpus(self) -> int:
        """Number of GPUs of one job, as far as its options say."""
        resources = [self.gres or ""]
        for option in self.extra:
            name, _, value = option.partition("=")
            if name == "--gres":
                resources.append(value)
            elif name in ("--gpus", "--gpus-per-node", "--gpus-per-task"):
                resources.append(f"gpu:{value}")
        return max(sum(int(count or 1) for count in _GPUS.findall(each)) for each in resources)


def minutes(time: str) -> float | None:
    """Parse a time limit in SLURM's notation (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S).

    Returns:
        Minutes; None for any other text.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        return None
    first, second, third = (None if match[name] is None else int(match[name]) for name in ("first", "second", "third"))
    if match["days"] is not None:
        return 1440.0 * int(match["days"]) + 60.0 * (first or 0) + (second or 0) + (third or 0) / 60
    if third is not None:
        return 60.0 * (first or 0) + (second or 0) + third / 60
    return (first or 0) + (second or 0) / 60
