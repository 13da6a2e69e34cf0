"""Snakemake's scheduler for plans of many experiments: jobs in the order in which the pool can serve them.

Model servers come one model after the other, so all jobs of a model's experiments are handed out before those of the
next; a job of another model would hold a slot and wait. Jobs are taken first fit; ready jobs are not weighed against
each other. Chosen with `scheduler: emoprobe` in a profile; Snakemake finds the plugin by the name of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from snakemake_interface_scheduler_plugins.base import SchedulerBase

SLOTS = ("_cores", "_job_count")
EXPERIMENT = "experiment"


class Scheduler(SchedulerBase):
    """First fit by model, priority, experiment and place in the plan.

    `turns` maps an experiment to (the turn of its model, its own place); the workflow sets it. Jobs of no experiment,
    and those of a workflow that sets nothing, come by priority and place in the plan.
    """

    turns: ClassVar[dict[str, tuple[int, int]]] = {}

    def __post_init__(self) -> None:
        """Nothing is ranked yet."""
        self._ranks: dict[Any, tuple[int, int, int, int]] = {}

    def select_jobs(
        self,
        selectable_jobs: Sequence[Any],
        remaining_jobs: Sequence[Any],
        available_resources: Mapping[str, int | str],
        input_sizes: Mapping[Any, int],
    ) -> list[Any]:
        """The jobs to start now: in order, each that fits into what is left, until no slot is."""
        free = {name: value for name, value in available_resources.items() if isinstance(value, int)}
        chosen = []
        for job in sorted(selectable_jobs, key=self._rank):
            needs = [(name, value) for name, value in job.scheduler_resources.items() if name in free]
            if all(value <= free[name] for name, value in needs):
                chosen.append(job)
                for name, value in needs:
                    free[name] -= value
                if any(free.get(name, 1) < 1 for name in SLOTS):
                    break
        return chosen

    def _rank(self, job: Any) -> tuple[int, int, int, int]:
        """Where a job stands; kept, as all ready jobs are sorted whenever one has finished."""
        if job not in self._ranks:
            wildcards = getattr(job, "wildcards_dict", None) or {}
            turn, place = self.turns.get(wildcards.get(EXPERIMENT, ""), (-1, -1))
            self._ranks[job] = (turn, -job.priority, place, job.jobid)
        return self._ranks[job]
