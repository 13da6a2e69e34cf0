"""The table of trajectories: one row for each folder in the trajectory contract.

It reads any such folder, also one that another program made: `trajectory.jsonl` must be there; what a missing
`agent_state.json` or `sample.json` would have said is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.lexicon import tone
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame
from emoprobe.results.trajectory import MESSAGES, AgentState, Outcome, Trajectory
from emoprobe.tasks import grading
from emoprobe.tasks.numbers import canonical, parse_number
from emoprobe.tasks.samples import sample_index
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
        pairs: variant and sample of each trajectory.
        config: adds valence and paraphrase where it knows the variant.

    Raises:
        DamagedError: a file is damaged or contradicts another; the message names it.
    """
    rows = [_row(root / variant / sample, variant, sample, config) for variant, sample in pairs]
    return frame(TABLES["trajectories"], rows)


def count_steps(text: str) -> int:
    """Reasoning steps of a completion: its non-empty lines, or its sentences where it has one line only."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return len(lines)
    return len([part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part])


def _row(folder: Path, variant: str, sample_id: str, config: Config | None) -> dict[str, Any]:
    trajectory = Trajectory.read(folder)
    state, outcome = trajectory.state or AgentState(), trajectory.outcome or Outcome()
    completion, answer = trajectory.completion, outcome.sample_data.answer
    gold = parse_number(str(answer)) if answer is not None else None
    extracted, _ = grading.extract(completion)
    known = config.variants.get(variant) if config is not None else None
    completion_tokens, max_tokens = state.usage.completion_tokens, state.request.get("max_tokens")
    finish = state.finish_reason
    mood = tone(grading.visible(completion))
    return {
        "variant": variant,
        "sample_id": sample_id,
        "valence": known.valence if known else None,
        "paraphrase": paraphrase_index(known, sample_index(sample_id)) if known else None,
        "question": outcome.sample_data.question,
        "gold": None if gold is None else canonical(gold),
        "completion": completion,
        "extracted": None if extracted is None else canonical(extracted),
        # Graded anew where the gold answer is known, so that a better grader needs no new trajectories.
        "correct": extracted == gold if gold is not None else _as_bool(outcome.metrics.correctness),
        "compliant": grading.is_compliant(completion),
        "efficiency": _efficiency(completion_tokens, max_tokens, outcome),
        "truncated": None if finish is None else finish == "length",
        "prompt_tokens": state.usage.prompt_tokens,
        "completion_tokens": completion_tokens,
        "characters": len(completion),
        "steps": count_steps(grading.visible(completion)),
        "polarity": mood.polarity,
        "subjectivity": mood.subjectivity,
        "worker": state.worker_id or outcome.worker_id,
        "attempts": len(state.attempts) or None,
        "started": state.timing.started,
        "seconds": outcome.processing_time if state.timing.seconds is None else state.timing.seconds,
        "failed_attempts": json.dumps([attempt.values() for attempt in state.attempts if attempt.error]),
    }


def _efficiency(completion_tokens: int | None, max_tokens: Any, outcome: Outcome) -> float | None:
    """Computed anew like every other grade; what the folder says only where its tokens are not known."""
    if completion_tokens is not None and max_tokens:
        return grading.efficiency(completion_tokens, max_tokens)
    return outcome.metrics.efficiency


def _as_bool(value: float | None) -> bool | None:
    return None if value is None else value >= 0.5
