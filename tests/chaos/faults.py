"""All faults by name."""

from __future__ import annotations

from tests.chaos import answers, disk, servers, slurm, workflow

FAULTS = {**answers.FAULTS, **servers.FAULTS, **workflow.FAULTS, **disk.FAULTS, **slurm.FAULTS}
