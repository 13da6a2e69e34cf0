"""Generate one trajectory by an OpenAI-compatible API."""

from __future__ import annotations

from emoprobe.conversations.api import PATH, api_failure, api_request, api_trajectory, check_reply
from emoprobe.conversations.samples import split_draw_id
from emoprobe.results.dates import date_to_now
from emoprobe.results.trajectory import Sample
from server.pool.api_budget import PaidCall
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs


async def generate(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Generate, grade and write one trajectory; within the allowed failures, a record of why there is none.

    Args:
        experiment: whose trajectory it is.
        fleet: the endpoints of the API.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: the API refuses the key, the account or the model.
        OverBudgetError: the call may cost more than is left.
        GaveUpError, RefusedError: there is no answer, and no more pairs may fail.
        VariantError: the pair has no request.
        OSError: a file could not be read or written.
    """
    config, layout = experiment.config, experiment.layout
    sample_id, number = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    request = api_request(config, variant, sample, number)
    send = PaidCall(experiment.api_budget, request, config.workers.timeout, {"variant": variant, "sample": name})
    index = experiment.pair_index(variant, sample.index, number)
    demand = ServerDemand(index, PATH, request, config.workers.timeout, check_reply, send=send)
    try:
        response, delivery = await fleet.deliver(demand)
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, error)
        trajectory = api_failure(config, variant, sample, request, str(error), error.attempts, number)
    else:
        experiment.allowance.answered(variant, name)
        trajectory = api_trajectory(config, variant, sample, request, response, delivery, number)
    date_to_now([layout.sample(sample_id), layout.model])
    await write(trajectory.write, layout.pair(variant, name))
