"""Generate one trajectory, or capture its activations at positions or at every token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import THOUGHT_POSITIONS
from emoprobe.conversations.kinds import NextTurn, Progress, next_turn
from emoprobe.conversations.rendering import RenderedPrompt, Renderer
from emoprobe.conversations.requests import (
    chat_request,
    message_spans,
    rendered_prompt,
    sent_request,
    sent_with_tools,
    turn_request,
)
from emoprobe.conversations.responses import Delivery, ResponseError, as_completion, check_response, completed, failed
from emoprobe.conversations.samples import sample_index, split_draw_id
from emoprobe.conversations.stored_spans import stored_spans
from emoprobe.conversations.tools import Interruption
from emoprobe.results.activation_folder import ActivationFolder, StoredTensors
from emoprobe.results.dates import date_to_now
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import CALLS, STATE, AgentState, Sample, Trajectory
from server.pool.allowance import ACTIVATIONS, TOKENS, TRAJECTORY
from server.pool.connections import delete_at_server, fetch_from_server
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.run import ExperimentJobs
from server.pool.thinking import deliver_within_budget
from server.pool.worker import Worker

Check = Callable[[Any], dict[str, Any]]
# Functions of the user's and tools may take long; files are written by other threads.
FUNCTIONS = ThreadPoolExecutor(max_workers=16, thread_name_prefix="conversation")


async def generate(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Generate, grade and write one trajectory; within the allowed failures, a record of why there is none.

    A conversation of several turns is asked turn by turn, each of any server: where one dies, the next goes on from the
    turns so far.

    Args:
        experiment: whose trajectory it is.
        fleet: the servers that generate.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        VariantError, DataError: the pair has no request, or a rule of its conversation failed.
        PromptError, ModelError: the messages have no prompt, or the tokenizer cannot be loaded.
        OSError: the files could not be written.
    """
    config, layout = experiment.config, experiment.layout
    sample_id, draw = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    if config.conversation.tools:
        fleet.start_early()  # it takes seconds to describe tools
    tools, renderer = await asyncio.gather(experiment.tools(), experiment.renderer())
    first = chat_request(config, experiment.model_name, variant, sample, draw) | tools
    wanted = _wanted(experiment, variant, name) if config.captures_inline else None
    # Which answer is the last, where a thought is, or which tokens end it, is known afterwards; then its tokens are
    # captured.
    later = config.conversation.kind != "single" or config.generation.thinking_budget is not None
    inline = None if later or captures_thoughts(config) else wanted
    turn: NextTurn | None = NextTurn(1, first["messages"])
    made: Trajectory | None = None
    while turn is not None:
        request = first if made is None else turn_request(first, turn)
        marks = None if inline is None else message_spans(config, request["messages"], sample.question)
        prompt = rendered_prompt(config, renderer, request, marks)
        asked = _demand(experiment, variant, sample, draw, sent_request(request, prompt.token_ids), prompt, inline)
        if "tools" in request:
            asked = _with_tools(config, asked, request, prompt, renderer)
        known: Any = {"draw": draw, "turn": turn.number, "before": made}
        try:
            response, delivery = await deliver_within_budget(
                fleet, asked, prompt, renderer, config.generation.thinking_budget,
                lambda ids: partial(check_response, prompt_ids=ids),
            )  # fmt: skip
        except UnansweredError as error:
            await experiment.allowance.must_admit(variant, name, TRAJECTORY, error)
            made = failed(config, variant, sample, request, prompt, str(error), error.attempts, **known)
            if wanted is not None:
                await _write_failed_capture(experiment, wanted, str(error), [])
            break
        made = completed(config, variant, sample, request, prompt, response, delivery, renderer=renderer, **known)
        turn, made = await following(config, variant, sample, draw, turn.number, made) if later else (None, made)
    else:
        experiment.allowance.answered(variant, name, TRAJECTORY)
        assert made is not None
        assert made.state is not None
        if inline is not None:
            await _pull_pushed(experiment, fleet, inline, response, delivery)
        elif wanted is not None:
            await _replay_state(experiment, fleet, variant, name, wanted, made.state, ACTIVATIONS)
    date_to_now([layout.sample(sample_id), layout.model])
    await write(made.write, layout.pair(variant, name))


async def following(
    config: Config, variant: str, sample: Sample, draw: int, number: int, made: Trajectory
) -> tuple[NextTurn | None, Trajectory]:
    """Return the turn after answer `number`, None at the end, and the conversation with the time that tools took.

    Tools end with the job that waits for them.

    Raises:
        VariantError: a function of the conversation failed.
    """
    right = made.outcome is not None and made.outcome.metrics.correctness == 1.0
    interruption = Interruption()
    progress = Progress(config, variant, sample.index, draw, made.messages, number, right, interruption)
    started = time.monotonic()
    try:
        turn = await asyncio.get_running_loop().run_in_executor(FUNCTIONS, next_turn, progress)
    except asyncio.CancelledError:
        interruption.end()
        raise
    if turn is not None and made.state is not None and made.state.finish_reason == CALLS:
        seconds = {"tool_seconds": round(time.monotonic() - started, 4)}
        made = replace(made, state=made.state.model_copy(update=seconds))
    return turn, made


def _demand(
    experiment: ExperimentJobs,
    variant: str,
    sample: Sample,
    draw: int,
    body: dict[str, Any],
    prompt: RenderedPrompt,
    inline: dict[str, Any] | None,
) -> ServerDemand:
    """The request for one answer, with the capture that is wanted along with it."""
    index, timeout = experiment.pair_index(variant, sample.index, draw), experiment.config.workers.timeout
    check: Check = partial(check_response, prompt_ids=prompt.token_ids)
    if inline is None:
        return ServerDemand(index, "/v1/completions", body, timeout, check)
    body |= {"ndif": inline | {"token_spans": prompt.spans}}
    fetch = _fetcher(experiment, inline)
    return ServerDemand(index, "/v1/completions", body, timeout, _capture_check(inline, check), fetch)


def _with_tools(
    config: Config, asked: ServerDemand, request: dict[str, Any], prompt: RenderedPrompt, renderer: Renderer
) -> ServerDemand:
    """The request for one answer of an agent: at the address where vLLM's parsers read the tool calls."""
    body = sent_with_tools(config, request, prompt)

    def check(response: Any) -> dict[str, Any]:
        return asked.check(as_completion(response, renderer.plain))

    return replace(asked, path="/v1/chat/completions", body=body, check=check)


def captures_thoughts(config: Config) -> bool:
    """Return whether a captured position is one of the thought."""
    positions = config.capture.positions
    return config.capture.enabled and positions != "all" and not THOUGHT_POSITIONS.isdisjoint(positions)


async def capture(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Capture the activations of one trajectory: its exact tokens once more, in one forward pass.

    A trajectory that is the record of an error has none; its folder says so. So does, within the allowed failures,
    that of a trajectory that no server captured.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        DamagedError: the trajectory cannot be read.
        PromptError, ModelError: the tokenizer cannot be loaded, or cannot locate anything.
        OSError: the record could not be written.
    """
    await _replay(experiment, fleet, variant, name, _wanted(experiment, variant, name), ACTIVATIONS)


async def capture_tokens(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
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
    await _replay(experiment, fleet, variant, name, wanted, TOKENS)


async def _replay(
    experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str, wanted: dict[str, Any], what: str
) -> None:
    path = experiment.layout.pair(variant, name) / STATE
    state = AgentState.read_file(path)
    date_to_now([path, experiment.layout.model])
    if state.error is not None:
        await _write_failed_capture(experiment, wanted, state.error, [])
        return
    if state.token_ids is None or state.prompt_token_ids is None:
        raise DamagedError(path, "it holds no token ids")
    await _replay_state(experiment, fleet, variant, name, wanted, state, what)


async def _replay_state(
    experiment: ExperimentJobs,
    fleet: Fleet,
    variant: str,
    name: str,
    wanted: dict[str, Any],
    state: AgentState,
    what: str,
) -> None:
    """Capture the tokens of a trajectory that was answered; `what` is counted where that fails."""
    assert state.token_ids is not None
    assert state.prompt_token_ids is not None
    thought = {} if state.thought is None or state.thought.span is None else {"thought": state.thought.span}
    spans, turns = stored_spans(await experiment.renderer(), state)
    located = {"token_spans": spans | thought, "prompt_tokens": len(state.prompt_token_ids)}
    request = {
        "model": experiment.model_name,
        "prompt": state.token_ids,
        "max_tokens": 0,
        "ndif": wanted | located | ({"turns": turns} if turns else {}),
    }
    index = experiment.pair_index(variant, sample_index(experiment.config, name), split_draw_id(name)[1])
    check, fetch = _capture_check(wanted, dict), _fetcher(experiment, wanted)
    asked = ServerDemand(index, "/v1/completions", request, experiment.config.workers.timeout, check, fetch)
    try:
        answer, delivery = await fleet.deliver(asked)
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, what, error)
        await _write_failed_capture(experiment, wanted, str(error), state.token_ids)
    else:
        experiment.allowance.answered(variant, name, what)
        await _pull_pushed(experiment, fleet, wanted, answer, delivery)


async def _write_failed_capture(
    experiment: ExperimentJobs, wanted: dict[str, Any], error: str, token_ids: list[int]
) -> None:
    """Write the activation folder of a pair that has no activations."""
    folder = experiment.results / wanted["save_dir"]
    await write(ActivationFolder.write_failure, folder, error, wanted["request_id"], token_ids)


def _request_id(experiment: ExperimentJobs, variant: str, name: str) -> str:
    return f"{experiment.config.experiment.name}-{variant}-{name}"


def _wanted(experiment: ExperimentJobs, variant: str, name: str) -> dict[str, Any]:
    """Return the `ndif` field of every capture of an experiment."""
    settings = experiment.pinned.capture
    push = {"push": True} if experiment.config.workers.capture_files == "push" else {}
    return {
        "save_dir": _save_dir(experiment, experiment.layout.activations(variant, name)),
        "request_id": _request_id(experiment, variant, name),
        "layers": settings.layers,
        "hook_points": settings.hook_points,
        "positions": settings.positions,
        "dtype": settings.dtype,
        **push,
    }


def _save_dir(experiment: ExperimentJobs, folder: Path) -> str:
    """Return where a server writes a folder; a host without this file system has another root."""
    elsewhere = experiment.config.workers.captures_elsewhere
    return str(folder.relative_to(experiment.results) if elsewhere else folder.resolve())


def _fetcher(experiment: ExperimentJobs, wanted: dict[str, Any]) -> Callable[[Worker, dict[str, Any]], Any] | None:
    """Return a function that fetches a folder from its server's disk; None where none is needed."""
    if not experiment.config.workers.captures_elsewhere or wanted.get("push"):
        return None
    return partial(fetch_from_server, experiment.results / wanted["save_dir"], wanted["save_dir"])


def _capture_check(wanted: dict[str, Any], check: Check) -> Check:
    """A check that an answer is good, and tells where the activations that were wanted lie."""

    def checked(answer: Any) -> dict[str, Any]:
        found = check(answer)
        crumb = found.get("ndif")
        if not isinstance(crumb, dict) or "save_dir" not in crumb:
            raise ResponseError(f"the answer has no ndif breadcrumb: {str(answer)[:200]}")
        if wanted.get("push"):
            _pushed(crumb)
        return found

    return checked


def _pushed(crumb: dict[str, Any]) -> tuple[StoredTensors, str]:
    """Return where a server has pushed the tensors of a capture, and their hash.

    Raises:
        ResponseError: the breadcrumb does not tell.
    """
    try:
        stored = StoredTensors.model_validate({key: crumb[key] for key in StoredTensors.model_fields})
        sha256 = crumb["sha256"]
    except (KeyError, ValueError):
        raise ResponseError(
            f"the answer does not tell where the activations were pushed to: {str(crumb)[:200]}"
        ) from None
    return stored, sha256


async def _pull_pushed(
    experiment: ExperimentJobs, fleet: Fleet, wanted: dict[str, Any], answer: dict[str, Any], delivery: Delivery
) -> None:
    """Bring activations here that their server has pushed, where it was to; its own copy is deleted then.

    Raises:
        StorageError: they cannot be had.
    """
    if not wanted.get("push"):
        return
    from emoprobe.storage.pull import pull_folder

    stored, sha256 = _pushed(answer["ndif"])
    await write(pull_folder, experiment.results / wanted["save_dir"], stored, sha256, experiment.config.storage)
    for worker in fleet.workers:
        if worker.name == delivery.worker_id:
            await delete_at_server(wanted["save_dir"], worker)


async def write(function: Callable[..., object], *arguments: Any) -> None:
    """Write in a thread: waiting for the disk must not hold up the other requests."""
    await asyncio.to_thread(function, *arguments)
