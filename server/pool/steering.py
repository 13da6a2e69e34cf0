"""Generate one steered trajectory, or score it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from emoprobe.conversations.requests import chat_request, rendered_prompt, sent_request
from emoprobe.conversations.responses import completed, failed
from emoprobe.conversations.samples import split_draw_id
from emoprobe.conversations.scoring import log_probabilities
from emoprobe.models.directory import ModelError
from emoprobe.results.dates import date_to_now
from emoprobe.results.layout import SCORES
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, AgentState, Sample, Scores, Trajectory
from emoprobe.steering import requests
from emoprobe.steering.grid import SteeredPair, SteeringEdit, UnknownConditionError
from server.pool.allowance import SCORE, TRAJECTORY
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs
from server.pool.thinking import deliver_within_budget


class SteeringJobError(ValueError):
    """Something that cannot be made for steering; the message says why."""


async def steer(experiment: ExperimentJobs, fleet: Fleet, where: str, name: str) -> None:
    """Generate, grade and write one trajectory under an edit; within the allowed failures, a record of its error.

    Args:
        experiment: whose trajectory it is.
        fleet: the NNsight servers.
        where: its condition and variant, such as `joy/add-all/L14/d0.4/control`.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, or none did so under the edit, and no more pairs may fail.
        SteeringError: the plan has no such trajectory.
        VariantError, DataError: the pair has no request.
        PromptError, ModelError: the messages have no prompt, or the tokenizer cannot be loaded.
        OSError: a file could not be read or written.
    """
    config, layout = experiment.config, experiment.layout
    steered, place = await _planned(experiment, where, name)
    edit = SteeringEdit.parse(steered.condition)
    sample_id, number = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    request = chat_request(config, experiment.model_name, steered.variant, sample, number)
    renderer = await experiment.renderer()
    prompt = rendered_prompt(config, renderer, request)
    sources = [layout.sample(sample_id), layout.model]
    steering: list[dict[str, Any]] = []
    if edit is not None:
        steering = [requests.edit_body(edit, layout, experiment.results)]
        request |= {"ndif": {"steering": steering}}
        sources.append(layout.direction(edit.direction))
    check = requests.check_steered(steering, prompt.token_ids)
    body = _sent(experiment, sent_request(request, prompt.token_ids))
    asked = ServerDemand(place, "/v1/completions", body, config.workers.timeout, check)
    try:
        response, delivery = await deliver_within_budget(
            fleet,
            asked,
            prompt,
            renderer,
            config.generation.thinking_budget,
            partial(requests.check_steered, steering),
        )
    except UnansweredError as error:
        await experiment.steering_allowance.must_admit(where, name, TRAJECTORY, error)
        made = failed(config, steered.variant, sample, request, prompt, str(error), error.attempts, draw=number)
    else:
        experiment.steering_allowance.answered(where, name, TRAJECTORY)
        made = completed(
            config, steered.variant, sample, request, prompt, response, delivery, renderer=renderer, draw=number
        )
    assert made.state is not None
    # Whatever generates the other trajectories, these come from the server that can steer.
    trajectory = Trajectory(made.messages, made.state.model_copy(update={"backend": "nnsight"}), made.outcome)
    date_to_now(sources)
    await write(trajectory.write, layout.steered(*steered))


async def score(experiment: ExperimentJobs, fleet: Fleet, where: str, name: str) -> None:
    """Score one steered trajectory by forward passes and write `scores.json`.

    The answer is read with and without the trajectory's own edit, and the gold answer forced after the prompt under the
    edit, unless the answer begins with it. A trajectory that is the record of an error has no scores; within the
    allowed failures, neither has one that no server scored.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        SteeringError: the plan has no such trajectory, or the model's tokenizer cannot be loaded.
        DamagedError: the trajectory cannot be read.
        OSError: the file could not be written.
    """
    layout = experiment.layout
    steered, place = await _planned(experiment, where, name)
    folder = layout.steered(*steered)
    state = AgentState.read_file(folder / STATE)
    date_to_now([folder / STATE])
    if state.error is not None:
        await write(Scores(error=state.error).write, folder / SCORES)
        return
    prompt, completion = state.prompt_token_ids, state.completion_token_ids
    if not prompt or not completion:
        raise DamagedError(folder / STATE, "it holds no token ids")
    sample = Sample.read(layout.sample(split_draw_id(name)[0]))
    assert sample.answer is not None  # steering takes the grader number, which needs it
    gold = experiment.config.steering.scores.gold.replace("{answer}", sample.answer)
    try:
        (forced,) = await asyncio.to_thread(lambda: experiment.encode([gold]))
    except ModelError as error:
        raise SteeringJobError(str(error)) from None
    asking = _Asking(experiment, fleet, place, prompt, requests.steering_of(state))
    try:
        found = await asking.scores(gold, forced, completion)
    except UnansweredError as error:
        await experiment.steering_allowance.must_admit(where, name, SCORE, error)
        found = Scores(error=str(error))
    else:
        experiment.steering_allowance.answered(where, name, SCORE)
    await write(found.write, folder / SCORES)


class _Asking:
    """The requests for the scores of one trajectory."""

    def __init__(
        self, experiment: ExperimentJobs, fleet: Fleet, place: int, prompt: list[int], steering: list[dict[str, Any]]
    ) -> None:
        self._experiment, self._fleet, self._place = experiment, fleet, place
        self._prompt, self._steering = prompt, steering

    async def scores(self, gold: str, forced: list[int], completion: list[int]) -> Scores:
        """Ask for all of them, one after the other: others fill the server meanwhile."""
        begin = len(self._prompt)
        first = min(len(completion), self._experiment.config.steering.scores.kl_tokens)
        answer = await self._ask(completion, self._steering, first if self._steering else 0)
        read = log_probabilities(answer, begin)
        logs, divergences = read, [0.0] * first
        if self._steering:
            logs, divergences = requests.unedited(answer), answer["ndif"]["kl"]
        if completion[: len(forced)] == forced:
            read = read[: len(forced)]
        else:
            read = log_probabilities(await self._ask(forced, self._steering), begin)
        return Scores(
            gold=gold,
            gold_tokens=len(forced),
            log_p_gold=sum(read),
            tokens=len(completion),
            perplexity=requests.perplexity(logs),
            kl=divergences,
        )

    async def _ask(self, text: list[int], steering: list[dict[str, Any]], kl: int = 0) -> dict[str, Any]:
        """The log-probabilities of the prompt and a text after it."""
        ids = [*self._prompt, *text]
        body = requests.score_body(self._experiment.model_name, ids, len(self._prompt), steering, kl)
        check = requests.check_scored(len(ids), steering, kl)
        timeout = self._experiment.config.workers.timeout
        sent = _sent(self._experiment, body)
        answer, _ = await self._fleet.deliver(ServerDemand(self._place, "/v1/completions", sent, timeout, check))
        return answer


def _sent(experiment: ExperimentJobs, body: dict[str, Any]) -> dict[str, Any]:
    """A request as a server gets it: with the directions themselves, if it cannot read their files.

    Raises:
        SteeringError: one is another than the trajectory was steered along.
    """
    steering = body.get("ndif", {}).get("steering")
    if not steering or not experiment.config.workers.captures_elsewhere:
        return body
    try:
        return body | {"ndif": body["ndif"] | {"steering": requests.with_rows(steering, experiment.results)}}
    except requests.ChangedDirectionError as error:
        raise SteeringJobError(str(error)) from None


async def _planned(experiment: ExperimentJobs, where: str, name: str) -> tuple[SteeredPair, int]:
    """A trajectory of the plan and its place among all.

    Raises:
        SteeringError: it is none.
        DataError: the questions cannot be drawn.
    """
    folder = Path(where)
    steered = SteeredPair(str(folder.parent), folder.name, name)
    plan = await asyncio.to_thread(lambda: experiment.steering)
    try:
        return steered, plan.trajectories[steered]
    except (KeyError, UnknownConditionError):
        raise SteeringJobError(
            f"the plan has no steered trajectory {where}/{name}; see `steering` in the configuration"
        ) from None
