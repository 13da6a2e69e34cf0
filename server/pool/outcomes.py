"""Measure what graders ask the model about one trajectory: the probability of its gold answer."""

from __future__ import annotations

import asyncio

from emoprobe.conversations.samples import sample_index, split_draw_id
from emoprobe.conversations.scoring import (
    ForcedForm,
    answer_context,
    check_scored,
    forced_forms,
    joined,
    log_probabilities,
    score_body,
)
from emoprobe.results.dates import date_to_now
from emoprobe.results.layout import OUTCOMES
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, AgentState, GoldForm, GoldProbability, Sample, tokens_sha256
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs

NO_ANSWER = "the completion ends within the thought"


class OutcomesError(ValueError):
    """Raised for an outcome that cannot be measured with this configuration; the message says why."""


async def measure(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Measure p(gold) of one trajectory and write `outcomes.json`; within the allowed failures, a record of its error.

    Args:
        experiment: whose trajectory it is.
        fleet: the servers that generate, so that all variants are measured by one kind of server.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        OutcomesError: the configuration has no such grader, or its forms cannot be scored.
        DamagedError: the trajectory cannot be read.
        PromptError, ModelError: the tokenizer cannot be loaded.
        OSError: a file could not be read or written.
    """
    settings, layout = experiment.config.logprob, experiment.layout
    if settings is None:
        raise OutcomesError("graders does not contain logprob, so there is nothing to measure")
    folder = layout.pair(variant, name)
    state = AgentState.read_file(folder / STATE)
    sample_id, draw = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    date_to_now([folder / STATE, layout.model])
    if state.error is not None:
        await write(GoldProbability(error=state.error).write, folder / OUTCOMES)
        return
    if state.token_ids is None:
        raise DamagedError(folder / STATE, "it holds no token ids")
    markers = (await experiment.renderer()).markers
    context = answer_context(state, markers)
    if context is None:
        await write(GoldProbability(after="thought", reason=NO_ANSWER).write, folder / OUTCOMES)
        return
    ids, between = context
    try:
        forms = await asyncio.to_thread(lambda: forced_forms(experiment.encode, settings, sample.answer, between))
    except ValueError as error:
        raise OutcomesError(str(error)) from None
    thought = len(ids) > len(state.prompt_token_ids or ())
    found = GoldProbability(
        after="thought" if thought else "prompt",
        context_tokens=len(ids),
        context_sha256=tokens_sha256(ids),
        lead=between + settings.lead,
    )
    place = experiment.pair_index(variant, sample_index(experiment.config, sample_id), draw)
    try:
        answers = [await _ask(experiment, fleet, place, ids, form) for form in forms]
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, error)
        found = found.model_copy(update={"error": str(error)})
    else:
        experiment.allowance.answered(variant, name)
        measured = [form for form, _ in answers]
        log_p = joined([form.log_p for form in measured])
        worker = answers[-1][1]
        found = found.model_copy(update={"forms": measured, "log_p_gold": log_p, "worker_id": worker})
    await write(found.write, folder / OUTCOMES)


async def _ask(
    experiment: ExperimentJobs, fleet: Fleet, place: int, context: list[int], form: ForcedForm
) -> tuple[GoldForm, str]:
    """Return a form with its log-probability after a context, and the worker that measured it."""
    ids = [*context, *form.tokens]
    body = score_body(experiment.model_name, ids)
    demand = ServerDemand(place, "/v1/completions", body, experiment.config.workers.timeout, check_scored(len(ids)))
    answer, delivery = await fleet.deliver(demand)
    logs = log_probabilities(answer, len(context) + form.given)
    return GoldForm(text=form.text, tokens=len(logs), log_p=sum(logs)), delivery.worker_id
