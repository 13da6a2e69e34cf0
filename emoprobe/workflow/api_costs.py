"""The cost of answers and judgements by APIs: lines of the dry run, and warnings about the budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emoprobe import __version__
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations import variants
from emoprobe.conversations.api import api_request, most_tokens
from emoprobe.conversations.judging import QUESTION_BYTES, judge_request
from emoprobe.conversations.kinds import every_turn
from emoprobe.conversations.samples import DataError, draw, row_digests
from emoprobe.conversations.samples import identity as data_identity
from emoprobe.conversations.sources import files, reasoning_gym
from emoprobe.conversations.variants import VariantError
from emoprobe.results.api_calls import ApiCalls
from emoprobe.workflow.remembered import remembered
from emoprobe.workflow.targets import Targets

# Bytes of an answer's token, for what judgements may cost.
TOKEN_BYTES = 4


def cost_lines(study: Study, experiments: Mapping[str, Targets]) -> list[str]:
    """Return what answers and judgements of each experiment may cost and have cost, a line each, after its name."""
    found = []
    for name, config in study.configs.items():
        targets = experiments[name]
        judges = [judge for judge in config.judges if judge.endpoints]
        if config.generation.backend == "api" or judges:
            calls = ApiCalls((targets.found or targets.layout).api_calls)
            made = [_answering(config, targets.memory, calls)] * (config.generation.backend == "api")
            made += [_judging(config, judges, targets.pairs, calls)] * bool(judges)
            found += [f"{name}: {line}" for line in _within(made, config.workers.max_cost)]
    return found


def _judging(
    config: Config, judges: list[JudgeGrader], pairs: list[tuple[str, str]], calls: ApiCalls
) -> tuple[str, float | None]:
    """Say what the judgements by APIs may cost, were each asked for once; the bound is None where it is not known."""
    prices = config.workers.prices
    unpriced = [judge.model for judge in judges if judge.model not in prices]
    if unpriced:
        return f"cost of judgements: not known, as workers.prices has no price for {unpriced[0]}", None
    bound, requests = 0.0, 0
    for judge in judges:
        # Texts of questions and answers are not there yet: an answer counts as long as it may be.
        sides = [[""]] * judge.sides
        prompt, completion = most_tokens(judge_request(judge, 0, "", *sides))
        answers = len(sides) * config.conversation.judged_answers * config.generation.max_tokens
        text = TOKEN_BYTES * answers + QUESTION_BYTES
        asked = judge.sides * len(judge.judged(pairs))
        bound += asked * prices[judge.model].of(prompt + text, completion)
        requests += asked
    line = (
        f"cost of judgements: about {bound:.4g} at most for {requests:,} requests (answers of as many tokens "
        f"as allowed, {TOKEN_BYTES} bytes each, and a token for each byte); {calls.spent:.4g} spent so far"
    )
    return line, bound


def _answering(config: Config, memory: Path | None, calls: ApiCalls) -> tuple[str, float | None]:
    """Say what the answers may cost, were each asked for once; the bound is None where it is not known."""
    price = config.workers.prices.get(config.model.source)
    if price is None:
        return f"cost: not known, as workers.prices has no price for {config.model.source}", None
    spent = f"{calls.spent:.4g} spent by {len(calls):,} calls" if len(calls) else "nothing spent so far"
    most = most_of_all(config, memory)
    if most is None:
        return f"cost: not known before the questions are there; {spent}", None
    prompts, completions = most
    bound = price.of(prompts, completions)
    line = (
        f"cost: at most {bound:.4g} for all trajectories, each asked once (a bound: {prompts:,} tokens of prompts, one "
        f"for each byte, and {completions:,} of completions, as many as allowed); {spent}"
    )
    return line, bound


def _within(made: list[tuple[str, float | None]], limit: float | None) -> list[str]:
    """Return the lines about answers and judgements, the last of which compares what both may cost with the limit."""
    *others, last = [line for line, _ in made]
    bounds = [bound for _, bound in made if bound is not None]
    if not bounds:
        return [*others, last]
    if limit is None:
        return [*others, f"{last}; workers.max_cost sets no limit"]
    together = f"; together at most {sum(bounds):.4g}" if len(bounds) > 1 else ""
    short = ", which may not suffice: calls over it fail, and what has been made stays" if sum(bounds) > limit else ""
    return [*others, f"{last}{together} of workers.max_cost = {limit:g}{short}"]


def most_of_all(config: Config, memory: Path | None) -> tuple[int, int] | None:
    """Return upper bounds of the tokens of all prompts and of all completions; None where the questions are not here.

    Args:
        config: the experiment.
        memory: folder in which the answer is kept as long as nothing that it is about changes.
    """
    dataset, seed = config.dataset, config.experiment.seed
    if not (reasoning_gym.matches(dataset.source) or files.is_file(dataset.source)):
        return None  # of the hub, where a plan downloads nothing
    try:
        about = [
            "api tokens", __version__, data_identity(dataset, seed), dataset.samples, config.prompt.content(),
            config.conversation.content(),
            config.generation.content(), config.generation.draws, row_digests(dataset, seed),
            {name: [variants.identity(config, name), variant.asks] for name, variant in config.variants.items()},
        ]  # fmt: skip
        first, second = remembered(memory, about, lambda: _counted(config))
    except (DataError, VariantError, OSError):
        return None  # the checks of data and variants name it
    return int(first), int(second)


def _counted(config: Config) -> list[str]:
    """Count the tokens of every request; the draws of one ask are alike, and no turn is skipped."""
    prompts = completions = 0
    draws = config.generation.draws
    for sample in draw(config.dataset, config.experiment.seed):
        for name, variant in config.variants.items():
            for ask in range(variant.asks):
                first = 1 + ask * draws
                for number, turn in enumerate(every_turn(config, name, sample.question, sample.index, first)):
                    later = turn if number else None
                    prompt, completion = most_tokens(api_request(config, name, sample, first, later))
                    prompt += number * TOKEN_BYTES * completion  # earlier answers, which are not there yet
                    prompts, completions = prompts + draws * prompt, completions + draws * completion
    return [str(prompts), str(completions)]
