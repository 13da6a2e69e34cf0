"""What the pool does for one job: a trajectory, or the activations of one."""

from __future__ import annotations

import asyncio
from typing import Any

from emoprobe.results.dates import end_future
from emoprobe.results.record import DamagedError
from emoprobe.results.sample import Sample
from emoprobe.results.trajectory import STATE, AgentState
from emoprobe.tasks.requests import chat_request, message_spans
from emoprobe.tasks.responses import ResponseError, check_response, completed
from emoprobe.tasks.samples import sample_index
from server.pool.fleet import Fleet
from server.pool.run import Run


async def draw(run: Run, sample_id: str) -> None:
    """Draw one sample and write it.

    Raises:
        DataError: it cannot be drawn. A data file's relative path is taken from the run's folder.
    """

    def work() -> None:
        sample = run.sample(sample_index(sample_id))
        sample.write(run.layout.sample(sample_id))

    await _write(work)


async def generate(run: Run, fleet: Fleet, variant: str, sample_id: str) -> None:
    """Generate, grade and write one trajectory.

    Raises:
        FleetDownError, GaveUpError, RefusedError: no server answered.
        VariantError, DataError: the pair has no request.
        OSError: the files could not be written.
    """
    config = run.config
    sample = Sample.read(run.layout.sample(sample_id))
    request = chat_request(config, run.model_name, variant, sample)
    if config.generation.backend == "nnsight" and config.capture.enabled:
        marks = message_spans(config, request["messages"], sample.question)
        request["ndif"] = _wanted(run, variant, sample_id) | {"message_spans": marks.values()}
    response, delivery = await fleet.request(
        run.pair_index(variant, sample.index),
        "/v1/chat/completions",
        request,
        config.workers.timeout,
        check_response,
    )
    request.pop("ndif", None)
    end_future([run.layout.sample(sample_id), run.layout.model])
    trajectory = completed(config, variant, sample, request, response, delivery)
    await _write(trajectory.write, run.layout.pair(variant, sample_id))


async def capture(run: Run, fleet: Fleet, variant: str, sample_id: str) -> None:
    """Capture the activations of one trajectory: its exact tokens once more, in one forward pass.

    Raises:
        FleetDownError, GaveUpError, RefusedError: no server answered.
        DamagedError: the trajectory cannot be read.
    """
    path = run.layout.pair(variant, sample_id) / STATE
    state = AgentState.read_file(path)
    if state.token_ids is None or state.prompt_token_ids is None:
        raise DamagedError(path, "it holds no token ids")
    request = {
        "model": run.model_name,
        "prompt": state.token_ids,
        "max_tokens": 0,
        "ndif": _wanted(run, variant, sample_id)
        | {
            "messages": state.request["messages"],
            "message_spans": state.message_spans and state.message_spans.values(),
            "chat_template_kwargs": state.request.get("chat_template_kwargs"),
            "prompt_tokens": len(state.prompt_token_ids),
        },
    }
    index = run.pair_index(variant, sample_index(sample_id))
    end_future([path, run.layout.model])
    await fleet.request(index, "/v1/completions", request, run.config.workers.timeout, _check_breadcrumb)


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
        raise ResponseError(f"the answer has no ndif breadcrumb: {str(answer)[:200]}")
    return dict(answer)


async def _write(function: Any, *arguments: Any) -> None:
    """Write in a thread: waiting for the disk must not hold up the other requests."""
    await asyncio.to_thread(function, *arguments)
