"""What the answers were computed on, where that limits how they can be made again."""

from __future__ import annotations

import pandas as pd

from emoprobe.models.hardware import models_without_batch_invariance
from emoprobe.results.statement import Statement


def notes(trajectories: pd.DataFrame) -> list[Statement]:
    """Notes on a mix of hardware, and on GPUs whose answers depend on their batch; none where nothing is known.

    Args:
        trajectories: the table `trajectories`.
    """
    if "hardware" not in trajectories:  # a table of an earlier version
        return []
    counts = {str(name): int(count) for name, count in trajectories["hardware"].dropna().value_counts().items()}
    found = []
    if len(counts) > 1:
        found.append(
            (
                "hardware",
                f"Answers were computed on different hardware: {_listed(counts)}. Rounding differs between them, so an "
                "answer that is made again on another of them may be another one.",
                float(len(counts)),
            )
        )
    older = {name: count for name, count in counts.items() if models_without_batch_invariance(name)}
    if older:
        found.append(
            (
                "batches",
                f"{_listed(older)}: vLLM has no batch invariance there, which needs compute capability 8.0. An answer "
                "can depend on what else was in its batch, so answers are reproducible per batch and not alone.",
                float(sum(older.values())),
            )
        )
    return [Statement(about=f"data:{about}", verdict="note", text=text, estimate=value) for about, text, value in found]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count} answer{'' if count == 1 else 's'})" for name, count in counts.items())
