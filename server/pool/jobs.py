"""What the pool does for one job: a trajectory, or the activations of one."""

from __future__ import annotations

import asyncio
from typing import Any

from scripts.lib import atomic, trajectories
from scripts.lib.dates import end_future
from scripts.lib.samples import Sample, sample_index
from server.pool.fleet import Fleet
from server.pool.run import Run


async def draw(run: Run, sample_id: str) -> None:
    """Draw one sample and write it.

    Raises:
        DataError: it cannot be drawn. A data file's relative path is taken from the run's folder.
    """

    def work() -> None:
        sample = run.sample(sample_index(sample_id))
        atomic.write_json(run.layout.sample(sample_id), sample.to_json())

    await _write(work)


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
    if config.generation.backend == "nnsight" and config.capture.enabled:
        marks = trajectories.message_spans(config, request["messages"], sample.question)
        request["ndif"] = _wanted(run, variant, sample_id) | {"message_spans": marks}
    response, delivery = await fleet.request(
        run.pair_index(variant, sample.index),
        "/v1/chat/completions",
        request,
        config.generation.timeout,
        trajectories.check_response,
    )
    request.pop("ndif", None)
    end_future([run.layout.sample(sample_id), run.layout.model])
    await _write(trajectories.write_trajectory, run.layout, config, variant, sample, request, response, delivery)


async def capture(run: Run, fleet: Fleet, variant: str, sample_id: str) -> None:
    """Capture the activations of one trajectory: its exact tokens once more, in one forward pass.

    Raises:
        FleetDownError, GaveUpError, RefusedError: no server answered.
        DamagedError: the trajectory cannot be read.
    """
    state = trajectories.read_json(run.layout.pair(variant, sample_id) / "agent_state.json")
    prompt, completion = state["prompt_token_ids"], state["completion_token_ids"]
    request = {
        "model": run.model_name,
        "prompt": prompt + completion,
        "max_tokens": 0,
        "ndif": _wanted(run, variant, sample_id)
        | {
            "messages": state["request"]["messages"],
            "message_spans": state["message_spans"],
            "chat_template_kwargs": state["request"].get("chat_template_kwargs"),
            "prompt_tokens": len(prompt),
        },
    }
    index = run.pair_index(variant, sample_index(sample_id))
    end_future([run.layout.pair(variant, sample_id) / "agent_state.json", run.layout.model])
    await fleet.request(index, "/v1/completions", request, run.config.generation.timeout, _check_breadcrumb)


def _wanted(run: Run, variant: str, sample_id: str) -> dict[str, Any]:
    """What every capture of a run asks for."""
    settings = run.config.capture
    return {
        "save_dir": str(run.layout.activations(variant, sample_id).resolve()),
        "request_id": f"{run.config.experiment.name}-{variant}-{sample_id}",
        "layers": settings.layers,
        "hook_points": settings.hook_points,
        "positions": settings.positions,
        "dtype": settings.dtype,
    }


def _check_breadcrumb(answer: Any) -> dict[str, Any]:
    """Return the answer if it tells where the activations lie.

    Raises:
        ResponseError: it does not.
    """
    if not isinstance(answer.get("ndif"), dict) or "save_dir" not in answer["ndif"]:
        raise trajectories.ResponseError(f"the answer has no ndif breadcrumb: {str(answer)[:200]}")
    return dict(answer)


async def _write(function: Any, *arguments: Any) -> None:
    """Write in a thread: waiting for the disk must not hold up the other requests."""
    await asyncio.to_thread(function, *arguments)
