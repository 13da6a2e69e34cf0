"""Generate one trajectory by an OpenAI-compatible API."""

from __future__ import annotations

from typing import Any

from emoprobe.conversations.api import PATH, api_failure, api_request, api_trajectory, check_reply
from emoprobe.conversations.kinds import NextTurn
from emoprobe.conversations.samples import split_draw_id
from emoprobe.results.dates import date_to_now
from emoprobe.results.trajectory import Sample, Trajectory
from server.pool.allowance import TRAJECTORY
from server.pool.api_budget import BudgetedRequest
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import following, write
from server.pool.run import ExperimentJobs


async def generate(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Generate, grade and write one trajectory; within the allowed failures, a record of why there is none.

    A conversation of several turns is asked turn by turn, each call within the budget.

    Args:
        experiment: whose trajectory it is.
        fleet: the endpoints of the API.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: the API refuses the key, the account or the model.
        OverBudgetError: a call may cost more than is left.
        GaveUpError, RefusedError: there is no answer, and no more pairs may fail.
        VariantError: the pair has no request, or a rule of its conversation failed.
        OSError: a file could not be read or written.
    """
    config, layout, timeout = experiment.config, experiment.layout, experiment.config.workers.timeout
    sample_id, draw = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    index = experiment.pair_index(variant, sample.index, draw)
    turn: NextTurn | None = None
    made: Trajectory | None = None
    while made is None or turn is not None:
        request = api_request(config, variant, sample, draw, turn)
        asked = BudgetedRequest(experiment.api_budget, request, timeout, variant=variant, sample=name)
        demand = ServerDemand(index, PATH, request, timeout, check_reply, hold=asked.hold, send=asked.send)
        known: Any = {"draw": draw, "turn": turn, "before": made}
        try:
            response, delivery = await fleet.deliver(demand)
        except UnansweredError as error:
            await experiment.allowance.must_admit(variant, name, TRAJECTORY, error)
            made = api_failure(config, variant, sample, request, str(error), error.attempts, **known)
            break
        made = api_trajectory(config, variant, sample, request, response, delivery, **known)
        turn, made = await following(config, variant, sample, draw, 1 if turn is None else turn.number, made)
    else:
        experiment.allowance.answered(variant, name, TRAJECTORY)
    date_to_now([layout.sample(sample_id), layout.model])
    await write(made.write, layout.pair(variant, name))
