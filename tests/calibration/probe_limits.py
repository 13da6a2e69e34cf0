"""The limits of the probes' verdicts: how far tones may differ in a confound, and how few questions there may be.

`python -m tests.calibration.probe_limits confounds 3000 [D]` prints the share of false findings of valence by inflation
of the variance, with 200 features or D, `… within 400` that of findings within questions by the number of questions with
both outcomes, and `… units 600` that of false findings of correctness by permutations alone, by the number of questions
or groups of them.
These set `MOST_INFLATION`, `LEAST_MIXED` and `LEAST_UNITS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.all_probes import run_probes
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.confounds import inflation
from emoprobe.analysis.probes.discriminant import variant_moments
from emoprobe.analysis.probes.position import positions_of
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.probes.valence import probe_valence
from emoprobe.analysis.statistics import LEVEL
from emoprobe.conversations.variants import variant_texts
from tests.calibration import probes
from tests.emoprobe.analysis import synthetic

D = 200
PERMUTATIONS = 199


def false_valence(run: int, d: int = D) -> dict[str, float]:
    """Return the p of a run in which activations hold the number of prompt tokens alone, whatever the inflation."""
    generator = np.random.default_rng([run, d])
    variants = synthetic.AROUSED if run % 2 else synthetic.BALANCED
    draw = probes.start(generator, int(generator.choice([24, 60])), 1, PERMUTATIONS, variants)
    more = int(generator.integers(0, 3))
    texts = {
        name: probes._texts(generator, name, more if valence == "negative" else 0)
        for name, valence in variants.items()
        if name != "control"
    }
    draw.settings = synthetic.config(variants, texts, targets=["valence"], permutations=PERMUTATIONS)
    draw.prompt()
    table, direction = draw.table, generator.normal(size=d)
    activations = generator.normal(size=(len(table), d))
    activations += np.outer(table["prompt_tokens"].to_numpy(dtype=float) / 2, direction)
    design = RowCodes.of(table, draw.settings)
    placed = [
        "" if pd.isna(text) else variant_texts(draw.settings, name)[int(text)]
        for name, text in zip(table["variant"], table["paraphrase"], strict=True)
    ]
    empty = {"last_prompt": np.zeros(len(table), dtype=bool)}
    (position,) = positions_of(table, placed, design, empty, draw.settings.probes)
    valence = position.valence
    assert valence is not None
    assert valence.confounds is not None
    cells = Cells.of(torch.from_numpy(activations.astype(np.float32))[None], position.design.fold)
    moments, plain = (
        variant_moments(cells, position.design, shrinkage) for shrinkage in (draw.settings.probes.shrinkage, 1.0)
    )
    permuted = probe_valence(cells, valence, moments, plain).permuted[0]
    columns = valence.confounds.features
    largest = max(inflation(each, valence.codes, valence.signs) for each in (columns, *columns.T[:, :, None]))
    return {"by": largest, "found": float((permuted >= permuted[0] - 1e-6).mean() <= LEVEL)}


def within(run: int, effect: float) -> dict[str, float]:
    """Return whether the test within questions rejects where right answers lie `effect` deviations from wrong ones."""
    generator = np.random.default_rng([run, D])
    draw = probes.start(generator, 24, 1, PERMUTATIONS)
    mixed = generator.permutation(24)[: int(generator.integers(4, 21))]
    question = draw.codes("sample_id")
    draw.answer(np.where(np.isin(question, mixed), 0.0, 20.0))
    direction = generator.normal(size=D)
    right = draw.table["correct"].to_numpy(dtype=float) - 0.5
    activations = generator.normal(size=(len(right), D))
    activations += effect * np.outer(right, direction / np.linalg.norm(direction))
    source = synthetic.source(draw.table, 1, D, run, None, ("response_mean",))
    block = {"response_mean": activations[:, None].astype(np.float32)}
    settings = draw.settings.model_copy(
        update={"probes": draw.settings.probes.model_copy(update={"targets": ["correct"], "min_per_class": 1})}
    )
    found = run_probes(draw.table, type(source)(**{**vars(source), "load": lambda *_: block}), settings)
    (test,) = (row for row in found.tests if row["target"] == "correct_within")
    return {"by": float(test["units"]), "found": float(test.get("p", 1.0) <= LEVEL)}


def units(plant: Callable[[probes.Draw], None], questions: int, runs: int) -> list[dict[str, float]]:
    """Return whether permutations alone find correctness where activations tell nothing of it, by independent units."""
    found = []
    for tests in probes.simulate(probes.World(plant, questions), runs):
        row = tests["correct"]
        if np.isfinite(row.get("p_permuted", np.nan)):
            ps, gains = ([row[a], row[b]] for a, b in (("p_permuted", "p_untruncated"), ("added", "added_untruncated")))
            rejects = np.nanmax(ps) <= LEVEL and np.nanmin(gains) > 0
            found.append({"by": float(row["units"]), "found": float(rejects)})
    return found


def main(kind: str, runs: int, d: int = D) -> None:
    """Print shares by the quantity that a limit is set on."""
    torch.set_num_threads(1)
    if kind == "confounds":
        rows, edges = [false_valence(run, d) for run in range(runs)], [0, 0.05, 0.1, 0.15, 0.25, 0.5, np.inf]
        print(_shares(rows, edges))
    elif kind == "units":
        for plant, questions in ((probes.question_identity, 12), (probes.question_identity, 19), (probes.template, 24)):
            print(f"{plant.__name__}, {questions} questions\n{_shares(units(plant, questions, runs), [0, 9, 12, 19])}")
    else:
        for effect in (0.0, 4.0):
            print(f"effect {effect}\n{_shares([within(run, effect) for run in range(runs)], [0, 7, 11, 20])}")


def _shares(rows: list[dict[str, float]], edges: list[float]) -> str:
    frame = pd.DataFrame(rows)
    shares = frame.groupby(pd.cut(frame["by"], edges, include_lowest=True), observed=True)["found"].agg(
        ["mean", "size"]
    )
    return str(shares.round(3).to_string())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
