"""The configuration of the servers of a judge that the run serves."""

from __future__ import annotations

from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.conversation import Conversation
from emoprobe.config.science.generation import Generation
from emoprobe.config.science.judge import JudgeGrader


def judge_server(config: Config, judge: JudgeGrader) -> Config:
    """Return the configuration of the vLLM servers of a judge: its model with the experiment's `workers`.

    Settings of the engine and of the conversation are those of the model that answers, so they are left out.

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
            "conversation": Conversation(),
            "capture": config.capture.model_copy(update=off),
            "features": config.features.model_copy(update=off),
            "steering": config.steering.model_copy(update=off),
            "workers": config.workers.model_copy(update=foreign),
        }
    )


def about_judge(judge: JudgeGrader, text: str) -> str:
    """Return what a check says about `model.source` of a judge's servers, with the key that names the model there."""
    return text.replace("model.source", f"graders.{judge.outcome}.model")
