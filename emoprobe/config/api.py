"""Rules for `generation.backend: api`: what an OpenAI-compatible API cannot do, and what only it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emoprobe.config.science.generation import Engine
from emoprobe.config.section import is_local

if TYPE_CHECKING:
    from emoprobe.config.experiment import Config


def api_problem(config: Config) -> str | None:
    """Return what must change in a configuration, in one line; None where it can be run."""
    workers = config.workers
    judges = [judge.model for judge in config.judges if judge.endpoints]
    free = [model for model in judges if workers.max_cost is not None and model not in workers.prices]
    if free:
        return f"workers.max_cost needs a price of the judge {free[0]} in workers.prices"
    if config.generation.backend != "api":
        unused = [name for name in ("prices", "max_cost") if getattr(workers, name) and not judges]
        return (
            f"workers.{unused[0]} is for generation.backend: api, and for judges by an API; remove it"
            if unused
            else None
        )
    changes = [*_tokens_needed(config), *_servers_of_ours(config), *_model_unnamed(config)]
    if not workers.endpoints:
        changes.append("name the API in workers.endpoints")
    if workers.max_cost is not None and config.model.source not in workers.prices:
        changes.append(f"give workers.prices a price for {config.model.source}, which workers.max_cost needs")
    if not changes:
        return None
    return (
        "generation.backend api exchanges messages with an API: there are no token ids, no activations and no "
        f"settings of the server. So {'; '.join(changes)}"
    )


def _tokens_needed(config: Config) -> Iterator[str]:
    for section in ("capture", "features", "steering"):
        if getattr(config, section).enabled:
            yield f"set {section}.enabled: false"
    if config.logprob is not None:
        yield "remove logprob from graders"
    if config.choice is not None:
        yield "remove choice from graders"
    generation = config.generation
    if generation.thinking is not None:
        yield "remove generation.thinking (generation.api_request takes what the API knows, such as reasoning_effort)"
    if generation.chat_template:
        yield "remove generation.chat_template"
    if config.conversation.is_open:
        yield "set conversation.kind to single or scripted"
    for number, turn in enumerate(config.conversation.turns):
        if turn.prefill is not None:
            yield f"remove conversation.turns.{number}.prefill, which an API does not continue"
    if config.prompt.date is not None:
        yield "remove prompt.date"


def _servers_of_ours(config: Config) -> Iterator[str]:
    if config.generation.engine != Engine():
        yield "remove generation.engine"
    if config.deploy.backend is not None:
        yield "remove deploy"
    for key in ("slurm", "capture_endpoints", "capture_files"):
        if getattr(config.workers, key):
            yield f"remove workers.{key}"


def _model_unnamed(config: Config) -> Iterator[str]:
    """Another model makes other answers, so the name is in `model.source`, a change of which makes them again."""
    if config.workers.model_name is not None:
        yield "remove workers.model_name and set model.source to the API's name of the model"
    if is_local(config.model.source):
        yield "set model.source to the API's name of the model"
    if config.model.revision is not None:
        yield "remove model.revision"
