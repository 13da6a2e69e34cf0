"""The table of trajectories: one row for each folder in the trajectory contract.

It reads any such folder, also one that another program made: `trajectory.jsonl` must be there; what a missing
`agent_state.json`, `sample.json` or `samples/{sample}.json`, or a missing field of one, would have said is null.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.science.graders import Graders, LogprobGrader
from emoprobe.conversations.judging import agreement_of_orders
from emoprobe.conversations.samples import known_pairs, sample_index, split_draw_id
from emoprobe.conversations.variants import ask_of, asks_of, paraphrase_index
from emoprobe.graders import grading, lexical, registry
from emoprobe.graders.answers import canonical, gold_number, is_letter
from emoprobe.results.catalogue import TABLES
from emoprobe.results.judgement import Comparison, Judgement, read_judgement
from emoprobe.results.layout import OUTCOMES_FILE, Layout
from emoprobe.results.tables import frame
from emoprobe.results.trajectory import (
    CALLS,
    MESSAGES,
    AgentState,
    AnswerRecord,
    GoldProbability,
    SampleFile,
    Trajectory,
)
from emoprobe.text import split_lines


def find_pairs(root: Path) -> list[tuple[str, str]]:
    """Every `variant/sample` folder below `root` that holds a trajectory."""
    return sorted((path.parent.parent.name, path.parent.name) for path in root.glob(f"*/*/{MESSAGES}"))


def load_trajectories(experiment: str | Path) -> pd.DataFrame:
    """Read every trajectory of an experiment, graded anew: the table `trajectories` of the catalogue.

    Where the folder holds a config (`experiment.yaml`), that says valences and texts, and what belongs to the
    experiment: trajectories of other variants, samples or draws, such as those of an earlier config, are left out with
    a warning.

    Args:
        experiment: folder of the experiment, or any folder that holds `VARIANT/SAMPLE/trajectory.jsonl`.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no trajectory; the message says what is there.
        DamagedError: a file is damaged; the message names it.
        ConfigError: the folder's config cannot be read.
    """
    layout = Layout(Path(experiment))
    there = find_pairs(layout.root)
    if not there:
        raise FileNotFoundError(nothing_there(layout.root))
    config = load_config(layout.root) if layout.resolved_yaml.exists() else None
    pairs = known_pairs(config, there)
    if len(pairs) < len(there):
        left = ", ".join(f"{variant}/{name}" for variant, name in sorted(set(there) - set(pairs))[:3])
        warnings.warn(
            f"{layout.root}: {len(there) - len(pairs)} trajectories that experiment.yaml does not contain are left out "
            f"({left}, …)",
            stacklevel=2,
        )
    return trajectory_table(layout.root, pairs, config)


def nothing_there(folder: Path) -> str:
    """Return why a folder has no trajectories, and what is there instead."""
    if not folder.is_dir():
        parent = folder.parent
        beside = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        return f"{folder} does not exist (folders in {parent}: {', '.join(beside[:20]) or 'none'})"
    inside = sorted(path.name for path in folder.iterdir())
    return (
        f"{folder} holds no trajectory: VARIANT/SAMPLE/trajectory.jsonl is looked for "
        f"(there: {', '.join(inside[:20]) or 'nothing'})"
    )


def trajectory_table(root: Path, pairs: Iterable[tuple[str, str]], config: Config | None = None) -> pd.DataFrame:
    """Read trajectories into a table as the catalogue declares the table `trajectories`.

    Args:
        root: folder of the experiment.
        pairs: variant and folder name of each trajectory: its sample's id, with `-d2` and so on for further draws.
        config: adds valence and paraphrase where it knows the variant, and names the graders.

    Raises:
        GraderError: a grader of the user failed; the message names it and the sample.
        DamagedError: a file is damaged or contradicts another; the message names it.
    """
    layout = Layout(root)

    @cache
    def sample(sample_id: str) -> SampleFile:
        path = layout.sample(sample_id)
        return SampleFile.read(path) if path.exists() else SampleFile()

    rows = [_row(layout, variant, name, config, sample(layout.drawn(name)[0])) for variant, name in pairs]
    graders = _graders(config)
    return frame(TABLES["trajectories"], rows, registry.outcome_columns(graders))  # type: ignore[arg-type]


def _graders(config: Config | None) -> Graders:
    return ["number", LogprobGrader()] if config is None else config.graders


def count_steps(text: str) -> int:
    """Reasoning steps of a completion: its non-empty lines, or its sentences where it has one line only."""
    lines = [line for line in split_lines(text) if line.strip()]
    if len(lines) > 1:
        return len(lines)
    return len([part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part])


def _row(layout: Layout, variant: str, name: str, config: Config | None, sample: SampleFile) -> dict[str, Any]:
    folder = layout.pair(variant, name)
    trajectory = Trajectory.read(folder)
    state, outcome = trajectory.state or AgentState(), trajectory.outcome or AnswerRecord()
    sample_id, draw = layout.drawn(name)
    known = config.variants.get(variant) if config is not None else None
    gold = gold_answer(sample, outcome, text=config is not None and config.dataset.answer_type == "text")
    measured, judgements = _measured(folder, config), _judgements(layout, variant, name, config)
    answer = registry.Answer(
        trajectory.completion,
        gold,
        finished=state.finish_reason != "length",
        choices=sample.choices,
        recorded=_as_bool(outcome.metrics.correctness),
        scored=outcome.scored_by is not None,
        given=state.prefill or 0,
        log_p_gold=measured.log_p_gold,
        log_p_options=None if measured.options is None else [(one.text, one.log_p) for one in measured.options],
        question=sample.question or outcome.sample_data.question,
        sample_id=sample_id,
        judgements={label: made.value for label, made in judgements.items() if made.value is not None},
    )
    return {
        "variant": variant,
        "sample_id": sample_id,
        "draw": draw,
        "group": sample.group,
        "valence": known.valence if known else None,
        "asks": known.asks if known else None,
        "paraphrase": _paraphrase(config, variant, name, sample) if config is not None and known else None,
        "question": answer.question,
        "gold": gold,
        **_answer(trajectory, state, outcome, answer, _graders(config)),
        **_judged(judgements),
        "worker": state.worker_id or outcome.worker_id,
        "hardware": state.hardware,
        "attempts": len(state.attempts) or None,
        "started": state.timing.started,
        "seconds": outcome.processing_time if state.timing.seconds is None else state.timing.seconds,
        "failed_attempts": json.dumps([attempt.values() for attempt in state.attempts if attempt.error]),
        "failure": trajectory.failure,
    }


def _answer(
    trajectory: Trajectory,
    state: AgentState,
    outcome: AnswerRecord,
    answer: registry.Answer,
    graders: Graders,
) -> dict[str, Any]:
    """The columns that say what was answered, graded anew, so that a better grader needs no new trajectories."""
    if trajectory.failure is not None or trajectory.answer is None:
        return {}
    completion, finish, usage = answer.completion, state.finish_reason, state.usage
    text = grading.visible(completion)
    mood = lexical.tone(text)
    graded = registry.graded(answer, graders)
    return {
        "completion": completion,
        **graded,
        **_turns(trajectory, answer, graded["correct"], number="number" in graders),
        "efficiency": _efficiency(usage.completion_tokens, state.request.get("max_tokens"), outcome),
        "truncated": None if finish is None else finish == "length",
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        **_thought(trajectory, state, completion),
        "characters": len(completion),
        "steps": count_steps(text),
        "polarity": mood.polarity,
        "subjectivity": mood.subjectivity,
    }


def _turns(trajectory: Trajectory, answer: registry.Answer, correct: bool | None, *, number: bool) -> dict[str, Any]:
    """The columns of the turns: how many were answered and, by the grader `number`, the grade of the first answer.

    Records of other programs and of version 0.2, which have no hashes, do not say which answers are the model's.
    """
    if trajectory.state is None or trajectory.state.hashes is None:
        return {}
    answered, last = trajectory.state.earlier_turns or [], correct
    earlier = [turn for turn in answered if turn.finish_reason != CALLS]  # an agent's calls are no answers
    if earlier and number:
        first = replace(
            answer,
            completion=trajectory.completion_of(earlier[0]),
            finished=earlier[0].finish_reason != "length",
            recorded=earlier[0].correct,
            scored=False,
            given=earlier[0].prefill or 0,
        )
        correct = registry.number(first, None)["correct"]
    survived = {"survived": last} if correct else {}
    return {"turns": 1 + len(answered), "correct_first": correct, **survived}


def _measured(folder: Path, config: Config | None) -> GoldProbability:
    """Read what graders asked the model; empty where nothing was measured, or the config does not ask for it."""
    asked = config is None or config.asks_model
    path = folder / OUTCOMES_FILE
    found = GoldProbability.read_file(path) if asked and path.exists() else GoldProbability()
    return found if config is None or config.logprob is not None else found.model_copy(update={"log_p_gold": None})


def _judgements(layout: Layout, variant: str, name: str, config: Config | None) -> dict[str, Judgement]:
    """Read the judgements that are there, by the label of the judge."""
    judges = [] if config is None else [judge for judge in config.judges if judge.judged([(variant, name)])]
    paths = {judge.outcome: layout.judgement(judge.outcome, variant, name) for judge in judges}
    return {label: read_judgement(path) for label, path in paths.items() if path.exists()}


def _judged(judgements: dict[str, Judgement]) -> dict[str, Any]:
    """Return the columns that say what came of the judgements."""
    columns: dict[str, Any] = {}
    for label, made in judgements.items():
        failed = made.error is not None
        columns[registry.JUDGED + label] = "failed" if failed else "value" if made.unusable is None else "unusable"
        columns[registry.QUOTES + label] = made.quotes
        if isinstance(made, Comparison) and made.value is not None:
            columns[registry.ORDERS + label] = agreement_of_orders([str(one.value) for one in made.orders])
    return columns


def _thought(trajectory: Trajectory, state: AgentState, completion: str) -> dict[str, Any]:
    """The columns of the thought; of a record without one, whether the text ends within a thought."""
    cut = trajectory.is_cut_off_in_thought
    if cut is None and state.finish_reason is not None:
        cut = state.finish_reason == "length" and grading.ends_within_thought(completion)
    span = None if state.thought is None else state.thought.tokens
    return {"thought_tokens": None if span is None else span[1] - span[0], "thought_cut_off": cut}


def gold_answer(sample: SampleFile, outcome: AnswerRecord, text: bool = False) -> str | None:
    """The gold answer of a trajectory in its canonical notation; None where it is not known or cannot be graded.

    Args:
        sample: its question.
        outcome: its grade when it was generated.
        text: answers are texts, and as they are.
    """
    answer = outcome.sample_data.answer if sample.answer is None else sample.answer
    if isinstance(answer, str) and (text or is_letter(answer)):
        return answer
    number = gold_number(answer)
    return None if number is None else canonical(number)


def _paraphrase(config: Config, variant: str, name: str, sample: SampleFile) -> int | None:
    """Return the index of a trajectory's text, by its place in the permutation; None where that is unknown."""
    index, (sample_id, draw) = sample.index, split_draw_id(name)
    numbered = re.fullmatch(rf"{re.escape(config.dataset.id_prefix)}_\d+", sample_id)
    if index is None and (numbered or config.dataset.id is not None):
        index = sample_index(config, sample_id)
    if index is None or ask_of(config, variant, draw) >= asks_of(config, variant):
        return None  # also of an ask that the config does not contain
    return paraphrase_index(config, variant, index, draw)


def _efficiency(completion_tokens: int | None, max_tokens: Any, outcome: AnswerRecord) -> float | None:
    """Computed anew like every other grade; what the folder says only where its tokens are not known."""
    if completion_tokens is not None and max_tokens:
        return grading.efficiency(completion_tokens, max_tokens)
    return outcome.metrics.efficiency


def _as_bool(value: float | None) -> bool | None:
    return None if value is None else value >= 0.5
