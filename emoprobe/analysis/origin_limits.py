"""Limits that follow from how an experiment was made: hardware, prompt, and what its folder says of itself.

Those of the data are in `emoprobe.analysis.limits`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.limits import Limit, LimitKind
from emoprobe.analysis.outcomes import survival_of
from emoprobe.analysis.trajectory_table import find_pairs
from emoprobe.config.experiment import Config
from emoprobe.config.section import is_format
from emoprobe.models.hardware import capability_of, models_without_batch_invariance
from emoprobe.models.settings import read_settings, why_not_batch_invariant
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.activations import find_pairs as find_captured
from emoprobe.results.api_calls import ApiCalls
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.metadata import RunMetadata


def hardware_limits(
    trajectories: pd.DataFrame, config: Config | None = None, settings: dict[str, Any] | None = None
) -> list[Limit]:
    """Return the limits of a mix of hardware, and of GPUs on which answers depend on their batch.

    Args:
        trajectories: the table `trajectories`; one of an earlier version has no hardware, and no such limit.
        config: the experiment's; None: it is not known.
        settings: the content of the model's config.json; None: it is not known.
    """
    if "hardware" not in trajectories:
        return []
    counts = {str(name): int(count) for name, count in trajectories["hardware"].dropna().value_counts().items()}
    limits = []
    if len(counts) > 1:
        limits.append(Limit(LimitKind.MIXED_HARDWARE, float(len(counts)), {"counts": counts}))
    gpus = {name: count for name, count in counts.items() if capability_of(name) is not None}
    by_capture_server = config is not None and config.generation.backend == "nnsight"
    if not by_capture_server:
        limits += _batch_limits(gpus, config, settings or {})
    if gpus and config is not None and (by_capture_server or config.steering.enabled):
        what = "The answers" if by_capture_server else "Steered answers"
        numbers = {"what": what, "counts": gpus}
        limits.append(Limit(LimitKind.GENERATED_BY_CAPTURE_SERVER, float(sum(gpus.values())), numbers))
    return limits


def first_answer_limits(trajectories: pd.DataFrame, config: Config) -> list[Limit]:
    """Return the limit of first answers that differ between variants, where no variant changes the first turn."""
    if not survival_of(config):
        return []
    known = trajectories[~trajectories["variant"].map(is_format)].dropna(subset="correct_first")
    counts = known.groupby(["sample_id", "draw"])["correct_first"].nunique().groupby("sample_id").max()
    numbers = {"count": int((counts > 1).sum()), "questions": len(counts)}
    return [Limit(LimitKind.FIRST_ANSWERS_DIFFER, float(numbers["count"]), numbers)] if numbers["count"] else []


def _batch_limits(gpus: dict[str, int], config: Config | None, settings: dict[str, Any]) -> list[Limit]:
    """GPUs, and their answers, on which vLLM ran without batch-invariant kernels."""
    wanted = "auto" if config is None else config.generation.engine.batch_invariant
    why = "generation.engine.batch_invariant is false" if wanted is False else why_not_batch_invariant(settings)
    older = {name: count for name, count in gpus.items() if models_without_batch_invariance(name)}
    if gpus and why is not None:
        numbers = {"counts": gpus, "why": why}
        return [Limit(LimitKind.BATCH_INVARIANCE_OFF, float(sum(gpus.values())), numbers)]
    return [Limit(LimitKind.BATCH_DEPENDENT, float(sum(older.values())), {"counts": older})] if older else []


def model_settings(layout: Layout) -> dict[str, Any]:
    """Return the content of the model's config.json; empty where it is not here any more."""
    try:
        return read_settings(Path(json.loads(layout.model.read_text(encoding="utf-8"))["path"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def prompt_limits(prompt: dict[str, Any], trajectories: pd.DataFrame) -> list[Limit]:
    """Return the limits of what the model reads besides the messages: text of a chat template, markup in questions.

    Args:
        prompt: the entry `prompt` of `metadata.json`; empty in folders of other versions.
        trajectories: the table `trajectories`.
    """
    limits = []
    if added := " … ".join(prompt.get("added") or []):
        limits.append(Limit(LimitKind.TEMPLATE_TEXT, numbers={"text": added}))
    if "question" not in trajectories:
        return limits
    questions = trajectories[["sample_id", "question"]].dropna().drop_duplicates("sample_id")
    contained = {
        str(sample): [token for token in prompt.get("control_tokens") or [] if token and token in str(question)]
        for sample, question in zip(questions["sample_id"], questions["question"], strict=True)
    }
    samples = [sample for sample, tokens in contained.items() if tokens]
    if samples:
        tokens = sorted({token for each in contained.values() for token in each})
        numbers = {"tokens": tokens, "samples": samples}
        limits.append(Limit(LimitKind.CONTROL_TOKENS, float(len(samples)), numbers))
    return limits


def api_limits(layout: Layout, config: Config | None) -> list[Limit]:
    """Return the limit of answers by an API, which pins no weights; none where servers of known weights answered.

    Args:
        layout: the experiment.
        config: its config; None: it is not known.

    Raises:
        OSError: the record of the calls cannot be read.
    """
    if config is None or config.generation.backend != "api":
        return []
    answered = dict(ApiCalls(layout.api_calls).models)
    numbers = {"model": config.model.source, "urls": config.workers.endpoints, "answered": answered}
    return [Limit(LimitKind.UNPINNED, numbers=numbers)]


def judge_limits(judges: pd.DataFrame | None) -> list[Limit]:
    """Return what is known of the judges of each trait, and which of them is alone.

    Args:
        judges: the table `judges`; None: the folder has none.
    """
    if judges is None or judges.empty:
        return []
    guesses = judges["guesses"].notna()
    limits = [Limit(LimitKind.GUESS, row["guessed"], {"row": row}) for row in plain_rows(judges[guesses])]
    judges = judges[~guesses]
    for _, rows in judges.groupby(judges["trait"].fillna(""), sort=False):
        known = plain_rows(rows)
        if len(known) == 1:
            numbers = {"judge": known[0]["judge"], "model": known[0]["model"]}
            limits.append(Limit(LimitKind.ONE_JUDGE, numbers=numbers))
        limits.append(Limit(LimitKind.JUDGES, numbers={"rows": known}))
    return limits


def folder_limits(layout: Layout, config: Config, trajectories: pd.DataFrame) -> list[Limit]:
    """Return the limits of what a folder says of itself; none of a folder as a run leaves it.

    Args:
        layout: the folder.
        config: its config; a field that is not set there is unknown.
        trajectories: the table `trajectories`.
    """
    limits = []
    missing = _unknown(layout, config)
    if missing:
        limits.append(Limit(LimitKind.UNKNOWN_ORIGIN, numbers={"missing": missing}))
    keys = zip(trajectories["variant"], trajectories["sample_id"], trajectories["draw"], strict=True)
    left = len(set(find_pairs(layout.root)) - {(variant, draw_id(sample, draw)) for variant, sample, draw in keys})
    if left:
        limits.append(Limit(LimitKind.LEFTOVERS, numbers={"count": left}))
    error = _capture_error(layout)
    if error is not None:
        limits.append(Limit(LimitKind.UNREADABLE_ACTIVATIONS, numbers={"error": error}))
    if not layout.resolved_yaml.exists():
        limits.append(Limit(LimitKind.NO_CONFIG))
    if not layout.sample("any").parent.is_dir():
        limits.append(Limit(LimitKind.NO_SAMPLES))
    unanswered = trajectories["failure"].isna() & trajectories["completion"].isna()
    if unanswered.any():
        limits.append(Limit(LimitKind.UNANSWERED, numbers={"count": int(unanswered.sum())}))
    answered = trajectories["failure"].isna() & ~unanswered
    ungraded, answers = int((trajectories["correct"].isna() & answered).sum()), int(answered.sum())
    if config.grades_answers and 0 < ungraded < answers:
        limits.append(Limit(LimitKind.UNGRADED, numbers={"count": ungraded, "total": answers}))
    if trajectories["truncated"].isna().all():
        limits.append(Limit(LimitKind.UNKNOWN_FINISH))
    return limits


def _capture_error(layout: Layout) -> str | None:
    """Return why there are no probes although there are activation folders; None where one can be read."""
    if layout.table("probe_tests").exists():
        return None
    error = None
    for pair in find_captured(layout):
        error = ActivationFolder.read(layout.activations(*pair)).metadata.error
        if error is None:
            return None
    return error


def _unknown(layout: Layout, config: Config) -> list[str]:
    """Parts of how the answers were made that neither metadata nor config name."""
    metadata = RunMetadata.of(layout)
    experiment, model, dataset, generation = (
        getattr(config, section).model_fields_set for section in ("experiment", "model", "dataset", "generation")
    )
    known = {
        "the model": metadata.model.id is not None or "source" in model,
        "the data set": "source" in dataset,
        "the seed": metadata.random_seed is not None or "seed" in experiment,
        "how answers were sampled": bool(metadata.sampling) or "temperature" in generation,
        "versions of the software": bool(metadata.package_versions),
    }
    return [part for part, is_known in known.items() if not is_known]
