"""Measure what graders ask the model about one trajectory: the probabilities of its gold answer and of options."""

from __future__ import annotations

import asyncio
from typing import Any

from emoprobe.conversations.samples import sample_index, split_draw_id
from emoprobe.conversations.scoring import (
    ForcedForm,
    answer_context,
    check_scored,
    forced_forms,
    forced_options,
    joined,
    log_probabilities,
    score_body,
)
from emoprobe.results.dates import date_to_now
from emoprobe.results.layout import OUTCOMES_FILE
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, AgentState, GoldForm, GoldProbability, Sample, tokens_sha256
from server.pool.allowance import OUTCOMES
from server.pool.fleet import Fleet, ServerDemand, UnansweredError
from server.pool.jobs import write
from server.pool.run import ExperimentJobs

NO_ANSWER = "the completion ends within the thought"


class OutcomesError(ValueError):
    """Raised for an outcome that cannot be measured with this configuration; the message says why."""


async def measure(experiment: ExperimentJobs, fleet: Fleet, variant: str, name: str) -> None:
    """Measure what graders ask about one trajectory and write `outcomes.json`.

    Within the allowed failures, the file is a record of the error.

    Args:
        experiment: whose trajectory it is.
        fleet: the servers that generate, so that all variants are measured by one kind of server.
        variant: the variant.
        name: the sample's id, with the draw where it is not the first.

    Raises:
        FleetDownError: no server is left.
        GaveUpError, RefusedError: no server answered, and no more pairs may fail.
        OutcomesError: the configuration has no such grader, its forms cannot be scored, or the question has no answer
            or options.
        DamagedError: the trajectory cannot be read.
        PromptError, ModelError: the tokenizer cannot be loaded.
        OSError: a file could not be read or written.
    """
    config, layout = experiment.config, experiment.layout
    if not config.asks_model:
        raise OutcomesError("graders contains neither logprob nor choice, so there is nothing to measure")
    folder = layout.pair(variant, name)
    state = AgentState.read_file(folder / STATE)
    sample_id, draw = split_draw_id(name)
    sample = Sample.read(layout.sample(sample_id))
    date_to_now([folder / STATE, layout.model])
    if state.error is not None:
        await write(GoldProbability(error=state.error).write, folder / OUTCOMES_FILE)
        return
    if state.token_ids is None:
        raise DamagedError(folder / STATE, "it holds no token ids")
    markers = (await experiment.renderer()).markers
    context = answer_context(state, markers)
    if context is None:
        await write(GoldProbability(after="thought", reason=NO_ANSWER).write, folder / OUTCOMES_FILE)
        return
    ids, between = context
    try:
        forms, options = await asyncio.to_thread(lambda: _forms(experiment, sample, between))
    except ValueError as error:
        raise OutcomesError(str(error)) from None
    thought = len(ids) > len(state.prompt_token_ids or ())
    found = GoldProbability(
        after="thought" if thought else "prompt",
        context_tokens=len(ids),
        context_sha256=tokens_sha256(ids),
        lead=None if config.logprob is None else between + config.logprob.lead,
        options_lead=None if config.choice is None else between + config.choice.lead,
    )
    place = experiment.pair_index(variant, sample_index(experiment.config, sample_id), draw)
    try:
        answers = [await _ask(experiment, fleet, place, ids, form) for form in (*forms, *options)]
    except UnansweredError as error:
        await experiment.allowance.must_admit(variant, name, OUTCOMES, error)
        found = found.model_copy(update={"error": str(error)})
    else:
        experiment.allowance.answered(variant, name, OUTCOMES)
        every = [form for form, _ in answers]
        gold, others = every[: len(forms)], every[len(forms) :]
        update: dict[str, Any] = {"forms": gold, "options": others or None, "worker_id": answers[-1][1]}
        if gold:
            update["log_p_gold"] = joined([form.log_p for form in gold])
        found = found.model_copy(update=update)
    await write(found.write, folder / OUTCOMES_FILE)


def _forms(experiment: ExperimentJobs, sample: Sample, between: str) -> tuple[list[ForcedForm], list[ForcedForm]]:
    """Return the forms of the gold answer and the options, as far as graders ask for them.

    Raises:
        ValueError: one cannot be scored, or the sample lacks it.
    """
    logprob, choice = experiment.config.logprob, experiment.config.choice
    if (logprob is not None and sample.answer is None) or (choice is not None and sample.choices is None):
        raise ValueError(
            f"{sample.sample_id} has no gold answer or no options; check dataset.answer and dataset.choices"
        )
    return (
        [] if logprob is None else forced_forms(experiment.encode, logprob, str(sample.answer), between),
        [] if choice is None else forced_options(experiment.encode, choice, sample.choices or [], between),
    )


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
