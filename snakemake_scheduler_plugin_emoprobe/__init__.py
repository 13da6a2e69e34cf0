"""Snakemake's scheduler for plans of many requests: first fit, and every request goes to the executor at once.

With `executor: emoprobe`, requests that are ready wait in the executor, which keeps their order and the resource
`requests`: Snakemake would look at each of thousands of ready jobs whenever one has finished. Beside another executor
the resource is kept here. Chosen with `scheduler: emoprobe` in a profile;
Snakemake finds the plugin by the name of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snakemake_interface_scheduler_plugins.base import SchedulerBase

REQUESTS = "requests"


class Scheduler(SchedulerBase):
    """First fit by priority and place in the plan."""

    def __post_init__(self) -> None:
        """Find out whether the executor keeps the order and number of requests."""
        workflow = self.dag.workflow
        executor = getattr(workflow.executor_plugin, "executor", None)
        ours = getattr(executor, "__module__", "") == "snakemake_executor_plugin_emoprobe"
        self._queues = ours and not workflow.deployment_settings.deployment_method

    def select_jobs(
        self,
        selectable_jobs: Sequence[Any],
        remaining_jobs: Sequence[Any],
        available_resources: Mapping[str, int | str],
        input_sizes: Mapping[Any, int],
    ) -> list[Any]:
        """The jobs to start now: in order, each that fits into what is left."""
        free = {name: value for name, value in available_resources.items() if isinstance(value, int)}
        if self._queues:
            free.pop(REQUESTS, None)
        chosen = []
        for job in sorted(selectable_jobs, key=lambda job: (-job.priority, job.jobid)):
            needs = [(name, value) for name, value in job.scheduler_resources.items() if name in free]
            if all(value <= free[name] for name, value in needs):
                chosen.append(job)
                for name, value in needs:
                    free[name] -= value
                if free.get("_job_count", 1) < 1:
                    break
        return chosen
