"""Stand-ins for functions of `emoprobe.tasks` that are being written; each goes as soon as the real one is there."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.results.sample import Sample
from emoprobe.results.trajectory import AgentState, Attempt, Metrics, Outcome, SampleData, Trajectory
from emoprobe.tasks import requests
from emoprobe.tasks.numbers import canonical


def split_draw_id(sample: str) -> tuple[str, int]:
    """Stands in for `emoprobe.tasks.samples.split_draw_id`: `gsm8k_0001-d2` is draw 2 of `gsm8k_0001`."""
    match = re.fullmatch(r"(.+)-d([0-9]+)", sample)
    return (match[1], int(match[2])) if match else (sample, 1)


def chat_request(config: Config, model: str, variant: str, sample: Sample, draw: int) -> dict[str, Any]:
    """Stands in for `emoprobe.tasks.requests.chat_request` with a draw."""
    body = requests.chat_request(config, model, variant, sample)
    if draw > 1:
        body["seed"] = requests.request_seed(config.experiment.seed, f"{sample.sample_id}-d{draw}")
    return body


def failed(
    config: Config, variant: str, sample: Sample, request: dict[str, Any], error: str, attempts: list[Attempt]
) -> Trajectory:
    """Stands in for `emoprobe.tasks.responses.failed`: the record of a pair that no server answered."""
    state = AgentState(
        experiment=config.experiment.name,
        variant=variant,
        sample_id=sample.sample_id,
        backend=config.generation.backend,
        request=request,
        attempts=attempts,
        error=error,
    )
    outcome = Outcome(
        sample_data=SampleData(
            question=sample.question, answer=canonical(Fraction(sample.answer)), sample_id=sample.sample_id
        ),
        sample_id=sample.sample_id,
        variant=variant,
        metrics=Metrics(correctness=0.0, format=0.0, efficiency=0.0),
    )
    return Trajectory([*request["messages"], {"role": "assistant", "content": ""}], state, outcome)
