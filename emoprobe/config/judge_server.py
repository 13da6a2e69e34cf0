"""The configuration of the servers of a judge that the run serves."""

from __future__ import annotations

from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.generation import Generation
from emoprobe.config.science.judge import JudgeGrader


def judge_server(config: Config, judge: JudgeGrader) -> Config:
    """Return the configuration of the vLLM servers of a judge: its model, run as the experiment's servers are.

    Args:
        config: the experiment.
        judge: one of its judges, without endpoints.

    Raises:
        ValueError: the judge has endpoints.
    """
    if judge.served is None:
        raise ValueError(f"graders.{judge.outcome} has endpoints")
    off = {"enabled": False}
    foreign: dict[str, Any] = {"endpoints": [], "capture_endpoints": [], "model_name": None}
    return config.model_copy(
        update={
            "model": judge.served,
            "generation": Generation(max_tokens=judge.max_tokens),
            "capture": config.capture.model_copy(update=off),
            "features": config.features.model_copy(update=off),
            "steering": config.steering.model_copy(update=off),
            "workers": config.workers.model_copy(update=foreign),
        }
    )
