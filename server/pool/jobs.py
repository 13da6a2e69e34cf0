"""What the pool does for one job: a sample, a trajectory, or the activations of one, at positions or every token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from emoprobe.results.activation_folder import ActivationFolder, Stored
from emoprobe.results.dates import date_to_now
from emoprobe.results.record import DamagedError
from emoprobe.results.sample import Sample
from emoprobe.results.trajectory import STATE, AgentState
from emoprobe.tasks.requests import chat_request, message_spans
from emoprobe.tasks.responses import ResponseError, check_response, completed, failed
from emoprobe.tasks.samples import sample_index, split_draw_id
from server.pool.experiment import Experiment
from server.pool.fetched import fetch_folder
from server.pool.fleet import Fleet, Request, UnansweredError
from server.pool.worker import Worker


async def draw(experiment: Experiment, sample_id: str) -> None:
    """Draw one sample and write it.

    Raises:
        DataError: it cannot be drawn. A data file's relative path is taken from where the workflow was started.
    """

    def work() -> None:
        sample = experiment.sample(sample_index(sample_id))
        sample.write(experiment.layout.sample(sample_id))

    await write(work)


async def generate(experiment: Experiment, fleet: Fleet, variant: str, name: str) -> None:
    """Generate, grade and write one trajectory; within the allowed failures, a record of why there is none.

    Args:
        experiment: whose trajectory it is.
        fleet: the servers that generate.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        VariantError, DataError: the pair has no request.
        OSError: the files could not be written.
    """
    config, layout = experiment.config, experiment.layout
    sample_id, number = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    request = chat_request(config, experiment.model_name, variant, sample, number)
    inline = config.captures_inline
    body = request
    if inline:
        marks = message_spans(config, request["messages"], sample.question)
        body = request | {"ndif": _wanted(experiment, variant, name) | {"message_spans": marks.values()}}
    remote = inline and config.storage.remote_captures
    index = experiment.pair_index(variant, sample.index, number)
    fetch = _fetcher(experiment, _wanted(experiment, variant, name)) if inline else None
    check = _check_remote if remote else check_response
    asked = Request(index, "/v1/chat/completions", body, config.workers.timeout, check, fetch)
    try:
        response, delivery = await fleet.deliver(asked)
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, error)
        trajectory = failed(config, variant, sample, request, str(error), error.attempts, draw=number)
        if inline:
            await _write_failed_capture(experiment, _wanted(experiment, variant, name), str(error), [])
    else:
        experiment.allowance.answered(variant, name)
        if remote:
            await _fetch(experiment, variant, name, response)
        trajectory = completed(config, variant, sample, request, response, delivery, draw=number)
    date_to_now([layout.sample(sample_id), layout.model])
    await write(trajectory.write, layout.pair(variant, name))


async def capture(experiment: Experiment, fleet: Fleet, variant: str, name: str) -> None:
    """Capture the activations of one trajectory: its exact tokens once more, in one forward pass.

    A trajectory that is the record of an error has none; its folder says so. So does, within the allowed failures,
    that of a trajectory that no server captured.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        DamagedError: the trajectory cannot be read.
        OSError: the record could not be written.
    """
    await _replay(experiment, fleet, variant, name, _wanted(experiment, variant, name))


async def capture_tokens(experiment: Experiment, fleet: Fleet, variant: str, name: str) -> None:
    """Capture one layer of one trajectory at every token, for the features; else as `capture`."""
    settings = experiment.config.features
    wanted = {
        "save_dir": _save_dir(experiment, experiment.layout.tokens(variant, name)),
        "request_id": f"{_request_id(experiment, variant, name)}-tokens",
        "layers": [settings.layer],
        "hook_points": ["resid_post"],
        "positions": "all",
        "dtype": settings.dtype,
    }
    await _replay(experiment, fleet, variant, name, wanted)


async def _replay(experiment: Experiment, fleet: Fleet, variant: str, name: str, wanted: dict[str, Any]) -> None:
    path = experiment.layout.pair(variant, name) / STATE
    state = AgentState.read_file(path)
    date_to_now([path, experiment.layout.model])
    if state.error is not None:
        await _write_failed_capture(experiment, wanted, state.error, [])
        return
    if state.token_ids is None or state.prompt_token_ids is None:
        raise DamagedError(path, "it holds no token ids")
    request = {
        "model": experiment.model_name,
        "prompt": state.token_ids,
        "max_tokens": 0,
        "ndif": wanted
        | {
            "messages": state.request["messages"],
            "message_spans": state.message_spans and state.message_spans.values(),
            "chat_template_kwargs": state.request.get("chat_template_kwargs"),
            "prompt_tokens": len(state.prompt_token_ids),
        },
    }
    index = experiment.pair_index(variant, sample_index(name), split_draw_id(name)[1])
    fetch = _fetcher(experiment, wanted)
    remote = experiment.config.storage.remote_captures
    check = _check_place if remote else _check_breadcrumb
    asked = Request(index, "/v1/completions", request, experiment.config.workers.timeout, check, fetch)
    try:
        answer, _ = await fleet.deliver(asked)
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, error)
        await _write_failed_capture(experiment, wanted, str(error), state.token_ids)
    else:
        experiment.allowance.answered(variant, name)
        if remote:
            await _fetch(experiment, variant, name, answer)


async def _write_failed_capture(
    experiment: Experiment, wanted: dict[str, Any], error: str, token_ids: list[int]
) -> None:
    """Write the activation folder of a pair that has no activations."""
    folder = experiment.results / wanted["save_dir"]
    await write(ActivationFolder.write_failure, folder, error, wanted["request_id"], token_ids)


def _request_id(experiment: Experiment, variant: str, name: str) -> str:
    return f"{experiment.config.experiment.name}-{variant}-{name}"


def _wanted(experiment: Experiment, variant: str, name: str) -> dict[str, Any]:
    """What every capture of an experiment asks for."""
    settings = experiment.config.capture
    return {
        "save_dir": _save_dir(experiment, experiment.layout.activations(variant, name)),
        "request_id": _request_id(experiment, variant, name),
        "layers": settings.layers,
        "hook_points": settings.hook_points,
        "positions": settings.positions,
        "dtype": settings.dtype,
    }


def _save_dir(experiment: Experiment, folder: Path) -> str:
    """Where a server is to write a folder; one on a host without this file system has another root."""
    remote = experiment.config.workers.capture_files == "fetch" or experiment.config.storage.remote_captures
    return str(folder.relative_to(experiment.results) if remote else folder.resolve())


def _fetcher(experiment: Experiment, wanted: dict[str, Any]) -> Callable[[Worker, dict[str, Any]], Any] | None:
    """What brings an activation folder here; None where the server writes it to its place by itself."""
    if experiment.config.workers.capture_files == "shared" or not experiment.config.workers.capture_endpoints:
        return None
    return partial(fetch_folder, experiment.results / wanted["save_dir"], wanted["save_dir"])


def _check_breadcrumb(answer: Any) -> dict[str, Any]:
    """Return the answer if it tells where the activations lie.

    Raises:
        ResponseError: it does not.
    """
    if not isinstance(answer.get("ndif"), dict) or "save_dir" not in answer["ndif"]:
        raise ResponseError(f"the answer has no ndif breadcrumb: {str(answer)[:200]}")
    return dict(answer)


def _check_place(answer: Any) -> dict[str, Any]:
    """Return the answer if it tells where the activations lie in object storage.

    Raises:
        ResponseError: it does not.
    """
    found = _check_breadcrumb(answer)
    if "uri" not in found["ndif"]:
        raise ResponseError("the answer names no uri (storage.remote_captures): start the server with --push URL")
    return found


def _check_remote(answer: Any) -> dict[str, Any]:
    """Check an answer whose activations are elsewhere.

    Raises:
        ResponseError: it cannot be used.
    """
    return _check_place(check_response(answer))


async def _fetch(experiment: Experiment, variant: str, name: str, answer: dict[str, Any]) -> None:
    """Fetch activations from where their server has pushed them.

    Raises:
        StorageError: they cannot be had.
    """
    from emoprobe.storage.pull import fetch_folder

    stored = Stored.model_validate({key: answer["ndif"].get(key) for key in Stored.model_fields})
    await write(fetch_folder, experiment.layout.activations(variant, name), stored, experiment.config.storage)


async def write(function: Callable[..., object], *arguments: Any) -> None:
    """Write in a thread: waiting for the disk must not hold up the other requests."""
    await asyncio.to_thread(function, *arguments)
