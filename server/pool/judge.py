"""Have one trajectory judged by another model, blind to its variant: alone, or in a pair with its reference's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations.api import PATH, check_reply, usage_of
from emoprobe.conversations.judging import (
    ReplyError,
    answers_of,
    check_blind,
    judge_request,
    preference,
    quotes_variant,
    read_reply,
)
from emoprobe.conversations.samples import counterpart, split_draw_id
from emoprobe.conversations.variants import opening_messages
from emoprobe.results.dates import date_to_now
from emoprobe.results.judgement import Comparison, Judgement
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, Message, Sample, Timing, Trajectory
from emoprobe.text import hashed_number
from server.pool.allowance import JUDGEMENT
from server.pool.api_budget import BudgetedRequest
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs

NO_ANSWER = "the answer has no text, so that nothing was asked"


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer that a judge is shown, turn by turn, with its variant, its folder, and the messages before it."""

    variant: str
    name: str
    answers: list[str]
    opening: list[Message]
    messages_sha256: str | None
    failure: str | None

    @classmethod
    def read(cls, experiment: ExperimentJobs, sample: Sample, variant: str, name: str) -> JudgedAnswer:
        """Read the answer; a date of it in the future becomes now."""
        folder = experiment.layout.pair(variant, name)
        trajectory = Trajectory.read(folder)
        date_to_now([folder / STATE])
        hashes = None if trajectory.state is None else trajectory.state.hashes
        opening = opening_messages(experiment.config, variant, sample.question, sample.index, split_draw_id(name)[1])
        answers = [] if trajectory.failure is not None else answers_of(trajectory)
        return cls(variant, name, answers, opening, None if hashes is None else hashes.messages, trajectory.failure)


async def judge(experiment: ExperimentJobs, fleet: Fleet, settings: JudgeGrader, variant: str, name: str) -> None:
    """Have one trajectory judged and write the judgement.

    A reply without a value is recorded as such and not asked for again, nor is the reply to the first of two requests
    where the second fails. Within the allowed failures, a judgement that no server gave is a record of the error.

    Args:
        experiment: whose trajectory it is.
        fleet: the judge's endpoints, or servers of its model.
        settings: the judge.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        BlindError: the request would show the variant.
        FleetDownError: no server is left, or the API refuses the key, the account or the model.
        OverBudgetError: the call may cost more than is left.
        GaveUpError, RefusedError: there is no reply, and no more judgements may fail.
        DamagedError: a trajectory cannot be read.
        VariantError: the variant has no messages.
        OSError: a file could not be read or written.
    """
    config, layout = experiment.config, experiment.layout
    sample = Sample.read(layout.sample(split_draw_id(name)[0]))
    sides = [JudgedAnswer.read(experiment, sample, variant, name)]
    blank = Judgement(
        judge=settings.outcome,
        variant=variant,
        sample_id=name,
        model=settings.model,
        messages_sha256=sides[0].messages_sha256,
    )
    found = blank
    reference = settings.compare_with
    if reference is not None:
        other = JudgedAnswer.read(experiment, sample, reference, counterpart(config, reference, name))
        sides.append(other)
        found = Comparison(
            **dict(blank), compare_with=reference, compared_id=other.name, compared_sha256=other.messages_sha256
        )
    update = _unasked(sides)
    if not update:
        requests = [
            judge_request(settings, config.experiment.seed, sample.question, *(side.answers for side in order))
            for order in (sides, sides[::-1])[: len(sides)]
        ]
        opening = [message for side in sides for message in side.opening]
        answers = [answer for side in sides for answer in side.answers]
        for request in requests:
            check_blind(config, settings, opening, sample, answers, request)
        quotes = any(quotes_variant(config, side.variant, side.answers) for side in sides)
        made = [await _first(experiment, fleet, settings, blank, requests[0])]
        if len(requests) > 1 and made[0].value is not None:  # else the other order would make no value of the pair
            # The reply is not paid for again where the second request fails.
            await write(made[0].write, _first_path(experiment, blank))
            made.append(await _ask(experiment, fleet, settings, blank, requests[1]))
        found, update = (made[0], {}) if reference is None else (found, _both(made))
        update["quotes"] = quotes
    await write(found.model_copy(update=update).write, layout.judgement(settings.outcome, variant, name))
    _first_path(experiment, blank).unlink(missing_ok=True)


def _unasked(sides: list[JudgedAnswer]) -> dict[str, Any]:
    """Return why nothing is asked; empty where all answers have text."""
    for side in sides:
        if side.failure is not None:
            return {"error": side.failure}
        if not any(answer.strip() for answer in side.answers):
            return {"unusable": NO_ANSWER}
    return {}


def _both(made: list[Judgement]) -> dict[str, Any]:
    """Return the fields of a comparison, which has a value where both orders have one."""
    update: dict[str, Any] = {"orders": made}
    costs = [one.cost for one in made if one.cost is not None]
    if costs:
        update["cost"] = sum(costs)
    for key in ("error", "unusable"):
        why = next((getattr(one, key) for one in made if getattr(one, key) is not None), None)
        if why is not None:
            return update | {key: why}
    return update | {"value": preference([str(one.value) for one in made])}


def _first_path(experiment: ExperimentJobs, blank: Judgement) -> Path:
    """Return where the first of two replies is kept until the second is there."""
    path = experiment.layout.judgement(blank.judge, blank.variant, blank.sample_id)
    return path.with_name(f".{path.name}.first")


async def _first(
    experiment: ExperimentJobs, fleet: Fleet, settings: JudgeGrader, blank: Judgement, request: dict[str, Any]
) -> Judgement:
    """Make the first request of a judgement, unless an earlier try has its reply."""
    try:
        kept = Judgement.read_file(_first_path(experiment, blank))
    except DamagedError:
        kept = None
    if kept is not None and (kept.request, kept.messages_sha256) == (request, blank.messages_sha256):
        return kept
    return await _ask(experiment, fleet, settings, blank, request)


async def _ask(
    experiment: ExperimentJobs, fleet: Fleet, settings: JudgeGrader, blank: Judgement, request: dict[str, Any]
) -> Judgement:
    """Make one request to a judge and return what came of it."""
    config, variant, name = experiment.config, blank.variant, blank.sample_id
    update: dict[str, Any] = {"request": request}
    # The endpoint follows from no place in the plan, in which variants take turns.
    place = hashed_number(f"{settings.outcome}/{variant}/{name}", 32)
    asked, timeout = None, config.workers.timeout
    demand = ServerDemand(place, f"/v1{PATH}", request, timeout, check_reply)
    if settings.endpoints:
        about = {"variant": variant, "sample": name}
        asked = BudgetedRequest(experiment.api_budget, request, timeout, settings.outcome, **about)
        # The URL of an API ends in its own version.
        demand = replace(demand, path=PATH, hold=asked.hold, send=asked.send)
    allowance, pair = experiment.judge_allowance, (f"{settings.outcome}/{variant}", name)
    try:
        response, delivery = await fleet.deliver(demand)
    except UnansweredError as error:
        await allowance.must_admit(*pair, JUDGEMENT, error)
        update |= {"error": str(error), "attempts": error.attempts}
    else:
        allowance.answered(*pair, JUDGEMENT)
        reply = response["choices"][0]["message"].get("content") or ""
        update |= {
            "reply": reply,
            "response": response,
            "usage": usage_of(response),
            "worker_id": delivery.worker_id,
            "attempts": delivery.attempts,
            "timing": Timing(started=delivery.started, seconds=round(delivery.seconds, 4)),
        }
        try:
            update["value"], update["reason"] = read_reply(settings, reply)
        except ReplyError as error:
            update["unusable"] = str(error)
    if asked is not None and settings.model in config.workers.prices:
        update["cost"] = asked.cost
    return blank.model_copy(update=update)
