"""Have one trajectory judged by another model, blind to its variant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations.api import PATH, check_reply, usage_of
from emoprobe.conversations.judging import (
    ReplyError,
    answers_of,
    check_blind,
    judge_request,
    quotes_variant,
    read_reply,
)
from emoprobe.conversations.samples import split_draw_id
from emoprobe.conversations.variants import opening_messages
from emoprobe.results.dates import date_to_now
from emoprobe.results.judgement import Judgement
from emoprobe.results.trajectory import STATE, Sample, Timing, Trajectory
from emoprobe.text import hashed_number
from server.pool.api_budget import BudgetedRequest
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs

NO_ANSWER = "the answer has no text, so that nothing was asked"


async def judge(experiment: ExperimentJobs, fleet: Fleet, settings: JudgeGrader, variant: str, name: str) -> None:
    """Have one trajectory judged and write the judgement.

    A reply without a value is recorded as such and not asked for again. Within the allowed failures, a judgement that
    no server gave is a record of the error.

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
        DamagedError: the trajectory cannot be read.
        VariantError: the variant has no messages.
        OSError: a file could not be read or written.
    """
    config, layout = experiment.config, experiment.layout
    sample_id, draw = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    trajectory = Trajectory.read(layout.pair(variant, name))
    date_to_now([layout.pair(variant, name) / STATE])
    path = layout.judgement(settings.outcome, variant, name)
    hashes = None if trajectory.state is None else trajectory.state.hashes
    found = Judgement(
        judge=settings.outcome,
        variant=variant,
        sample_id=name,
        model=settings.model,
        messages_sha256=None if hashes is None else hashes.messages,
    )
    if trajectory.failure is not None:
        await write(found.model_copy(update={"error": trajectory.failure}).write, path)
        return
    opening = opening_messages(config, variant, sample.question, sample.index, draw)
    answers = answers_of(trajectory)
    if not any(answer.strip() for answer in answers):
        await write(found.model_copy(update={"unusable": NO_ANSWER}).write, path)
        return
    request = judge_request(settings, config.experiment.seed, sample.question, answers)
    check_blind(config, settings, opening, sample, answers, request)
    update: dict[str, Any] = {"request": request, "quotes": quotes_variant(config, variant, answers)}
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
        await allowance.must_admit(*pair, error)
        update |= {"error": str(error), "attempts": error.attempts}
    else:
        allowance.answered(*pair)
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
    await write(found.model_copy(update=update).write, path)
