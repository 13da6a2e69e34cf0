"""What the pool does for one job: a trajectory, or the activations of one."""

from __future__ import annotations

import asyncio
from typing import Any

from scripts.lib import trajectories
from scripts.lib.samples import Sample
from server.pool.fleet import Fleet
from server.pool.run import Run


async def generate(run: Run, fleet: Fleet, variant: str, sample_id: str) -> None:
    """Generate, grade and write one trajectory.

    Raises:
        FleetDownError, GaveUpError, RefusedError: no server answered.
        TransformError, DataError: the pair has no request.
        OSError: the files could not be written.
    """
    config = run.config
    sample = Sample.read(run.layout.sample(sample_id))
    request = trajectories.chat_request(config, run.model_name, variant, sample)
    response, delivery = await fleet.request(
        run.pair_index(variant, sample.index),
        "/v1/chat/completions",
        request,
        config.generation.timeout,
        trajectories.check_response,
    )
    await _write(trajectories.write_trajectory, run.layout, config, variant, sample, request, response, delivery)


async def _write(function: Any, *arguments: Any) -> None:
    """Write in a thread: waiting for the disk must not hold up the other requests."""
    await asyncio.to_thread(function, *arguments)
