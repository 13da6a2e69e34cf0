"""All probes of an experiment against the plain scikit-learn loop with the same folds."""

from __future__ import annotations

import resource
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emoprobe.analysis.probes.experiment import make_design, run_probes
from emoprobe.analysis.probes.scores import auroc
from emoprobe.analysis.probes.targets import make_target
from emoprobe.config.experiment import Config
from tests.benchmarks.measure import report
from tests.emoprobe.analysis import synthetic

SAMPLES, LAYERS, D = 200, 30, 576
POSITIONS = ("last_prompt", "response_mean", "response_last")
HOOK_POINTS = ("input_layernorm.output", "post_attention_layernorm.output")
SUBSET = 3  # cells that the plain loop runs; its time is scaled


def run() -> None:
    """1,400 trajectories, 30 layers, 2 hook points, 3 positions, d = 576, three targets."""
    settings = synthetic.config(7)
    table = synthetic.table(settings, SAMPLES, 0)

    def signal(layer: int, position: str, noise: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng([layer, len(position)])
        codes = table["variant"].astype("category").cat.codes.to_numpy()
        directions = generator.normal(size=(7, D)) * 0.03
        return directions[codes] + np.outer(table["correct"].astype(float), generator.normal(size=D) * 0.02)

    source = synthetic.source(table, LAYERS, D, 0, signal, POSITIONS, HOOK_POINTS)
    cells = LAYERS * len(POSITIONS) * len(HOOK_POINTS)
    started = time.monotonic()
    found = run_probes(table, source, settings, transfers=False)
    ours = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    areas = {(row["layer"], row["position"], row["hook_point"], row["target"]): row["auroc"] for row in found.probes}
    plain, worst = 0.0, 0.0
    for layer in np.linspace(0, LAYERS - 1, SUBSET).astype(int).tolist():
        features = source.load(layer, layer + 1, HOOK_POINTS[0])[POSITIONS[0]][:, 0].astype(np.float32)
        started = time.monotonic()
        loop = _plain_loop(features, table, settings)
        plain += time.monotonic() - started
        for target, area in loop.items():
            worst = max(worst, abs(area - areas[layer, POSITIONS[0], HOOK_POINTS[0], target]))
    scaled = plain / SUBSET * cells
    report(
        "probes", cells=cells, targets=3, seconds=ours, seconds_per_cell=ours / cells, sklearn_seconds_per_cell=plain / SUBSET,
        sklearn_seconds_scaled=scaled, ratio=scaled / ours, worst_auroc_difference=worst, peak_gib=peak,
    )  # fmt: skip
    started = time.monotonic()
    one_layer = synthetic.source(table, 1, D, 0, signal, POSITIONS, HOOK_POINTS)
    run_probes(table, one_layer, synthetic.config(7, permutations=10))
    each = (time.monotonic() - started) / (len(POSITIONS) * len(HOOK_POINTS))
    report("probes_with_permutations_and_transfer", cells=len(POSITIONS) * len(HOOK_POINTS), seconds_per_cell=each)


def _plain_loop(features: np.ndarray, table: object, settings: Config) -> dict[str, float]:
    """AUROC of each target by StandardScaler and LogisticRegressionCV, with the folds that the probes use."""
    targets = [make_target(name, table, settings) for name in settings.probes.targets]  # type: ignore[arg-type]
    design = make_design(table, targets, settings)  # type: ignore[arg-type]
    assert design is not None
    areas = {}
    for target in targets:
        chances = np.zeros((len(features), len(target.classes)))
        for fold in range(settings.probes.folds):
            training = np.flatnonzero((design.folds != fold) & target.known)
            test = np.flatnonzero((design.folds == fold) & target.known)
            inner = design.inner[fold][training]
            splits = [(np.flatnonzero(inner != part), np.flatnonzero(inner == part)) for part in range(inner.max() + 1)]
            regression = LogisticRegressionCV(
                Cs=settings.probes.strengths,
                cv=splits,
                scoring="neg_log_loss",
                max_iter=1000,
                use_legacy_attributes=False,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = make_pipeline(StandardScaler(), regression).fit(features[training], target.labels[training])
            chances[test] = model.predict_proba(features[test])
        areas[target.name] = auroc(chances, target.labels, design.folds)
    return areas
