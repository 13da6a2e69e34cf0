"""All probes of an experiment against the plain scikit-learn loop with the same folds, and at other shapes."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from emoprobe.analysis.probes.all_probes import run_probes, usable_device, use_large_pages
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.config.experiment import Config
from tests.benchmarks.measure import report
from tests.emoprobe.analysis import synthetic
from tests.emoprobe.analysis.test_probes_methods import Given

SAMPLES, D = 200, 576
POSITIONS = ("last_prompt", "response_mean", "response_last")
HOOK_POINTS = ("input_layernorm.output", "post_attention_layernorm.output")
SUBSET = 2  # cells that the plain loop runs; its time is scaled
PERMUTATIONS = 199
FULL_SAMPLES, FULL_VARIANTS = 1319, 9
WIDE_SAMPLES, WIDE_D, WIDE_CELLS = 320, 4096, 360  # 3,200 rows
WIDE_LAYERS = (1, 3)


def run(arguments: list[str]) -> None:
    """2,000 trajectories, 30 layers, 2 hook points, 3 positions, d = 576; then a layer of the whole GSM8K's shape.

    Then some cells of 3,200 trajectories at d = 4,096, whose time is scaled. The plain loop fits valence and correctness once; ours does as well for every permutation, and what activations add.
    """
    parser = argparse.ArgumentParser(prog="probes")
    parser.add_argument("--layers", type=int, default=30, help="layers of the first part")
    parser.add_argument("--no-full", action="store_true", help="leave the second part out")
    parser.add_argument("--wide", action="store_true", help="the third part alone")
    options = parser.parse_args(arguments)
    use_large_pages()
    if options.wide:
        wide()
        return
    layers: int = options.layers
    settings = synthetic.config(synthetic.BALANCED, permutations=PERMUTATIONS, targets=["valence", "correct"])
    table = synthetic.table(settings, SAMPLES, 0)
    source = synthetic.source(table, layers, D, 0, _signal(table), POSITIONS, HOOK_POINTS)
    cells = layers * len(POSITIONS) * len(HOOK_POINTS)
    started, cpu = time.monotonic(), time.process_time()
    found = run_probes(table, source, settings, transfers=False)
    ours, ours_cpu = time.monotonic() - started, time.process_time() - cpu
    areas = {(row["layer"], row["position"], row["hook_point"], row["target"]): row["auroc"] for row in found.probes}
    plain, worst, logistic = 0.0, 0.0, []
    for layer in np.linspace(0, layers - 1, SUBSET).astype(int).tolist():
        features = source.load(layer, layer + 1, HOOK_POINTS[0])[POSITIONS[0]][:, 0].astype(np.float32)
        started = time.monotonic()
        loop = _plain_loop(features, table, settings)
        plain += time.monotonic() - started
        ours_here = {target: areas[layer, POSITIONS[0], HOOK_POINTS[0], target] for target in loop}
        worst = max(worst, abs(loop["valence"] - ours_here["valence"]))
        logistic.append(_logistic(features, table, settings) - ours_here["correct"])
    scaled = plain / SUBSET * cells
    report(
        "probes", cells=cells, targets=2, permutations=PERMUTATIONS, seconds=ours, cpu_seconds=ours_cpu, seconds_per_cell=ours / cells,
        sklearn_seconds_per_cell=plain / SUBSET, ratio=scaled / ours, worst_auroc_difference=worst,
        logistic_regression_better_by=float(np.mean(logistic)),
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )  # fmt: skip
    if not options.no_full:
        full()
        wide()


def full() -> None:
    """One layer and position of 1,319 questions in 9 variants, every target, with permutations."""
    variants = dict(list(synthetic.BALANCED.items())[1:]) | {"control": None}
    settings = synthetic.config(dict(list(variants.items())[-FULL_VARIANTS:]), permutations=PERMUTATIONS)
    table = synthetic.table(settings, FULL_SAMPLES, 0)
    source = synthetic.source(table, 1, D, 0, _signal(table), POSITIONS[:1], HOOK_POINTS[:1])
    started = time.monotonic()
    run_probes(table, source, settings)
    report("probes_full_gsm8k", rows=len(table), seconds_per_cell=time.monotonic() - started)


def wide() -> None:
    """Two positions, every target, with permutations; without the time that it takes to draw activations.

    One layer and then three, since what precedes the cells is done once for all of them.
    """
    settings = synthetic.config(synthetic.BALANCED, permutations=PERMUTATIONS)
    table = synthetic.table(settings, WIDE_SAMPLES, 0)
    seconds, cpu = np.zeros(2), np.zeros(2)
    for number, layers in enumerate(WIDE_LAYERS):
        source = synthetic.source(table, layers, WIDE_D, 0, None, POSITIONS[:2], HOOK_POINTS[:1])
        block = source.load(0, layers, HOOK_POINTS[0])
        started, cpu_started = time.monotonic(), time.process_time()
        # NumPy's threads wait for each other busily, for up to half a minute where other processes need the cores.
        with threadpool_limits(1):
            run_probes(table, replace(source, load=_slice_of(block)), settings)
        seconds[number], cpu[number] = time.monotonic() - started, time.process_time() - cpu_started
    cells = 2 * np.diff(WIDE_LAYERS)[0]
    of_cell, cpu_of_cell = np.diff(seconds)[0] / cells, np.diff(cpu)[0] / cells
    once = cpu[0] - 2 * WIDE_LAYERS[0] * cpu_of_cell
    report(
        "probes_wide", rows=len(table), d=WIDE_D, seconds_per_cell=of_cell, cpu_seconds_per_cell=cpu_of_cell,
        cpu_seconds_once=once, cells=WIDE_CELLS, cpu_minutes=(once + cpu_of_cell * WIDE_CELLS) / 60,
        device=str(usable_device()),
    )  # fmt: skip


def _slice_of(block: dict[str, np.ndarray]) -> Callable[[int, int, str], dict[str, np.ndarray]]:
    return lambda begin, end, _hook_point: {name: values[:, begin:end] for name, values in block.items()}


def _signal(table: pd.DataFrame) -> synthetic.Signal:
    codes = table["variant"].astype("category").cat.codes.to_numpy()

    def signal(layer: int, position: str, _noise: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng([layer, len(position)])
        directions = generator.normal(size=(codes.max() + 1, D)) * 0.03
        planted: np.ndarray = directions[codes] + np.outer(
            table["correct"].astype(float), generator.normal(size=D) * 0.02
        )
        return planted

    return signal


def _plain_loop(features: np.ndarray, table: pd.DataFrame, settings: Config) -> dict[str, float]:
    """AUROC of valence and correctness by scikit-learn's discriminant, in the folds that the probes use."""
    design = RowCodes.of(table, settings)
    standard = StandardScaler().fit_transform(features.astype(float))
    correct, valence = [], []
    classes = [np.flatnonzero(design.valence == sign) for sign in (-1, 1)]
    centres = np.stack([standard[design.variant == code].mean(0) for code in range(len(design.variants))])
    variance = float(((standard - centres[design.variant]) ** 2).mean())
    for fold in range(design.folds):
        training, test = design.fold != fold, design.fold == fold
        means = np.stack(
            [standard[training & (design.variant == code)].mean(0) for code in range(len(design.variants))]
        )
        centred = standard[training] - means[design.variant[training]]
        # λ is that of all rows, for as many of them as all folds but one have.
        shrinkage, share = settings.probes.shrinkage, len(standard) * (1 - 1 / design.folds) / len(centred)
        level = shrinkage * share * variance * np.eye(standard.shape[1])
        covariance = Given((1 - shrinkage) * centred.T @ centred / len(centred) + level)
        model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance)
        scores = model.fit(standard[training], design.correct[training]).decision_function(standard[test])
        correct.append(roc_auc_score(design.correct[test], scores))
        for low in classes[0]:
            for high in classes[1]:
                codes = [code for code in (*classes[0], *classes[1]) if code not in (low, high)]
                # Variants count alike, also where one has fewer rows: the discriminant is fitted on their means.
                model.fit(means[codes], design.valence[codes])
                own = test & np.isin(design.variant, [low, high])
                valence.append(roc_auc_score(design.variant[own] == high, model.decision_function(standard[own])))
    return {"correct": float(np.mean(correct)), "valence": float(np.mean(valence))}


def _logistic(features: np.ndarray, table: pd.DataFrame, settings: Config) -> float:
    """AUROC of correctness by logistic regression at the best of three strengths."""
    design = RowCodes.of(table, settings)
    standard = StandardScaler().fit_transform(features.astype(float))
    best = 0.0
    for strength in (1e-4, 1e-3, 1e-2):
        areas = []
        for fold in range(design.folds):
            training, test = design.fold != fold, design.fold == fold
            model = LogisticRegression(C=strength, max_iter=1000).fit(standard[training], design.correct[training])
            areas.append(roc_auc_score(design.correct[test], model.decision_function(standard[test])))
        best = max(best, float(np.mean(areas)))
    return best
