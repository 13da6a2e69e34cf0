"""The table of steered trajectories: one row for each folder below `steering/`, graded anew like every other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.trajectory_table import gold_answer
from emoprobe.config.science.steering import NONE
from emoprobe.conversations.samples import split_draw_id
from emoprobe.graders import grading
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import SCORES, Layout
from emoprobe.results.tables import frame
from emoprobe.results.trajectory import MESSAGES, AgentState, AnswerRecord, SampleFile, Scores, Trajectory
from emoprobe.steering.grid import SteeringEdit, ToneDirection
from emoprobe.steering.requests import edited_tokens

LONG, SHORT = 4, 3  # tokens of an n-gram, and of one in a text with hardly any longer ones
SHORT_TEXT = 12


def steering_table(
    layout: Layout, steered: Iterable[tuple[str, str, str]], directions: Mapping[str, ToneDirection]
) -> pd.DataFrame:
    """Read steered trajectories and their scores into the table `steering` of the catalogue.

    Args:
        layout: the experiment.
        steered: condition, variant and folder name of each.
        directions: what is known of each direction by its name.

    Raises:
        DamagedError: a file is damaged; the message names it.
    """

    @cache
    def sample(sample_id: str) -> SampleFile:
        path = layout.sample(sample_id)
        return SampleFile.read(path) if path.exists() else SampleFile()

    rows = []
    for condition, variant, name in steered:
        folder = layout.steered(condition, variant, name)
        trajectory, scores = Trajectory.read(folder), Scores.read_file(folder / SCORES)
        sample_id, draw = split_draw_id(name)
        asked = sample(sample_id)
        rows.append(
            _condition(condition, directions)
            | {
                "variant": variant,
                "sample_id": sample_id,
                "draw": draw,
                "group": asked.group,
                "question": asked.question,
            }
            | _answer(trajectory, asked)
            | _scores(scores)
            | {"error": trajectory.failure or scores.error}
        )
    return frame(TABLES["steering"], rows)


def find_steered(layout: Layout) -> list[tuple[str, str, str]]:
    """Condition, variant and folder name of every trajectory below `steering/` that is there and scored."""
    root = layout.root / "steering"
    folders = (path.relative_to(root).parent.parts for path in root.rglob(SCORES) if (path.parent / MESSAGES).exists())
    return sorted(("/".join(parts[:-2]), parts[-2], parts[-1]) for parts in folders if len(parts) in (3, 6))


def repetition(tokens: Sequence[int]) -> float:
    """The share of a text's n-grams of tokens that occurred in it before; 0 for a text without any.

    n is 4, and 3 in texts below 12 tokens.
    """
    length = SHORT if len(tokens) < SHORT_TEXT else LONG
    grams = [tuple(tokens[place : place + length]) for place in range(len(tokens) - length + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _condition(folder: str, directions: Mapping[str, ToneDirection]) -> dict[str, Any]:
    edit = SteeringEdit.parse(folder)
    if edit is None:
        return {"direction": NONE, "family": NONE, "dose": 0.0}
    direction = directions[edit.direction]
    return {
        "direction": direction.name,
        "family": direction.family,
        "tone": direction.tone,
        "operation": edit.operation,
        "phase": edit.phase,
        "layers": edit.layer_text,
        "dose": edit.dose,
    }


def _answer(trajectory: Trajectory, sample: SampleFile) -> dict[str, Any]:
    """The columns that say what was answered; none where nothing was, and no grade without a gold answer."""
    if trajectory.failure is not None or trajectory.answer is None:
        return {}
    state = trajectory.state or AgentState()
    finished, tokens = state.finish_reason != "length", state.completion_token_ids or []
    gold = gold_answer(sample, trajectory.outcome or AnswerRecord())
    grades: dict[str, Any] = {}
    if gold is not None:
        grade = grading.grade(trajectory.completion, gold, finished=finished, choices=sample.choices)
        grades = {"correct": grade.correct, "correct_lenient": grade.lenient}
        grades |= {"compliant": grade.compliant, "extraction": grade.extraction}
    return {
        **grades,
        "truncated": not finished,
        "completion_tokens": state.usage.completion_tokens,
        "repetition": repetition(tokens),
        "edited_tokens": edited_tokens(state),
    }


def _scores(scores: Scores) -> dict[str, Any]:
    """The columns of forward passes; none where there were none."""
    if scores.error is not None:
        return {}
    return {
        "log_p_gold": scores.log_p_gold,
        "perplexity": scores.perplexity,
        "kl": float(np.mean(scores.kl)) if scores.kl else None,
    }
