"""The table of trajectories: one row for each folder in the trajectory contract.

It reads any such folder, also one that another program made: `trajectory.jsonl` must be there; what a missing
`agent_state.json`, `sample.json` or `samples/{sample}.json` would have said is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.lexicon import tone
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.sample import Sample
from emoprobe.results.tables import frame
from emoprobe.results.trajectory import MESSAGES, AgentState, Outcome, Trajectory
from emoprobe.tasks import grading
from emoprobe.tasks.gold import gold_number, is_letter
from emoprobe.tasks.numbers import canonical
from emoprobe.tasks.samples import sample_index, split_draw_id
from emoprobe.tasks.variants import paraphrase_index


def find_pairs(root: Path) -> list[tuple[str, str]]:
    """Every `variant/sample` folder below `root` that holds a trajectory."""
    return sorted((path.parent.parent.name, path.parent.name) for path in root.glob(f"*/*/{MESSAGES}"))


def load_trajectories(experiment: str | Path) -> pd.DataFrame:
    """Every trajectory of a folder in the trajectory contract, graded: the table `trajectories` of the catalogue.

    Args:
        experiment: folder of the experiment. Where it holds a config, that tells valences and texts.

    Raises:
        DamagedError: a file is damaged; the message names it.
        ConfigError: the folder's config cannot be read.
    """
    layout = Layout(Path(experiment))
    config = load_config(layout.root) if layout.resolved_yaml.exists() else None
    return trajectory_table(layout.root, find_pairs(layout.root), config)


def trajectory_table(root: Path, pairs: Iterable[tuple[str, str]], config: Config | None = None) -> pd.DataFrame:
    """Read trajectories into a table as the catalogue declares the table `trajectories`.

    Args:
        root: folder of the experiment.
        pairs: variant and folder name of each trajectory: its sample's id, with `-d2` and so on for further draws.
        config: adds valence and paraphrase where it knows the variant.

    Raises:
        DamagedError: a file is damaged or contradicts another; the message names it.
    """
    layout = Layout(root)

    @cache
    def sample(sample_id: str) -> Sample | None:
        path = layout.sample(sample_id)
        return Sample.read(path) if path.exists() else None

    rows = [
        _row(layout.pair(variant, name), variant, name, config, sample(split_draw_id(name)[0]))
        for variant, name in pairs
    ]
    return frame(TABLES["trajectories"], rows)


def count_steps(text: str) -> int:
    """Reasoning steps of a completion: its non-empty lines, or its sentences where it has one line only."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return len(lines)
    return len([part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part])


def _row(folder: Path, variant: str, name: str, config: Config | None, sample: Sample | None) -> dict[str, Any]:
    trajectory = Trajectory.read(folder)
    state, outcome = trajectory.state or AgentState(), trajectory.outcome or Outcome()
    sample_id, draw = split_draw_id(name)
    known = config.variants.get(variant) if config is not None else None
    gold = _gold(sample.answer if sample else outcome.sample_data.answer)
    return {
        "variant": variant,
        "sample_id": sample_id,
        "draw": draw,
        "group": sample.group if sample else None,
        "valence": known.valence if known else None,
        "paraphrase": _paraphrase(config, variant, sample_id, sample) if config is not None and known else None,
        "question": sample.question if sample else outcome.sample_data.question,
        "gold": gold,
        **_answer(trajectory, state, outcome, gold, sample.choices if sample else None),
        "worker": state.worker_id or outcome.worker_id,
        "hardware": state.hardware,
        "attempts": len(state.attempts) or None,
        "started": state.timing.started,
        "seconds": outcome.processing_time if state.timing.seconds is None else state.timing.seconds,
        "failed_attempts": json.dumps([attempt.values() for attempt in state.attempts if attempt.error]),
        "failure": trajectory.failure,
    }


def _answer(
    trajectory: Trajectory, state: AgentState, outcome: Outcome, gold: str | None, choices: list[str] | None
) -> dict[str, Any]:
    """The columns that say what was answered, graded anew, so that a better grader needs no new trajectories."""
    if trajectory.failure is not None:
        return {}
    completion, finish, usage = trajectory.completion, state.finish_reason, state.usage
    text = grading.visible(completion)
    mood = tone(text)
    grades: dict[str, Any]
    if gold is not None:
        grade = grading.grade(completion, gold, finished=finish != "length", choices=choices)
        grades = {"extracted": grade.answer, "correct": grade.correct, "lenient": grade.lenient}
        grades |= {"extraction": grade.extraction, "compliant": grade.compliant}
    else:  # what the folder says of its correctness is all there is
        found, said = grading.extract(completion), _as_bool(outcome.metrics.correctness)
        grades = {"extracted": found.notation, "correct": said, "lenient": said}
        grades |= {"extraction": found.extraction, "compliant": grading.is_compliant(completion)}
    return {
        "completion": completion,
        **grades,
        "efficiency": _efficiency(usage.completion_tokens, state.request.get("max_tokens"), outcome),
        "truncated": None if finish is None else finish == "length",
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "characters": len(completion),
        "steps": count_steps(text),
        "polarity": mood.polarity,
        "subjectivity": mood.subjectivity,
    }


def _gold(answer: str | int | float | None) -> str | None:
    """A gold answer in its canonical notation; None where it is not known or cannot be graded."""
    if isinstance(answer, str) and is_letter(answer):
        return answer
    number = gold_number(answer)
    return None if number is None else canonical(number)


def _paraphrase(config: Config, variant: str, sample_id: str, sample: Sample | None) -> int | None:
    """Which text a sample got, by its place in the permutation; None where a foreign name does not tell the place."""
    try:
        return paraphrase_index(config, variant, sample.index if sample else sample_index(sample_id))
    except ValueError:
        return None


def _efficiency(completion_tokens: int | None, max_tokens: Any, outcome: Outcome) -> float | None:
    """Computed anew like every other grade; what the folder says only where its tokens are not known."""
    if completion_tokens is not None and max_tokens:
        return grading.efficiency(completion_tokens, max_tokens)
    return outcome.metrics.efficiency


def _as_bool(value: float | None) -> bool | None:
    return None if value is None else value >= 0.5
