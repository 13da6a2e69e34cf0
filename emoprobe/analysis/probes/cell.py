"""One cell: all probes at one layer, hook point and position, which share their features and decompositions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.logistic import Basis, Problem, fit, probabilities, standardise
from emoprobe.analysis.probes.scores import Scores, auroc, auroc_interval, scores
from emoprobe.analysis.probes.targets import Target, make_folds, permuted
from emoprobe.config.science.probes import Probes

# (iterations, tolerance): choosing a strength and drawing a baseline need less precision than the probes themselves.
SEARCH = (25, 5e-3)
FINAL = (100, 1e-3)
BASELINE = (25, 1e-2)


@dataclass(frozen=True)
class Design:
    """What all cells share: targets, control tasks and permutations, samples, folds, bootstraps."""

    targets: list[Target]
    controls: list[Target]
    groups: np.ndarray
    folds: np.ndarray
    inner: list[np.ndarray]
    permutations: list[list[Target]]
    counts: np.ndarray
    settings: Probes
    seed: int

    @classmethod
    def make(
        cls, targets: list[Target], controls: list[Target], strata: np.ndarray, groups: np.ndarray, counts: np.ndarray,
        folds: np.ndarray, settings: Probes, seed: int,
    ) -> Design:  # fmt: skip
        """Divide the training rows of each fold once more (a row outside of them: −1), and deal out permutations."""
        inner = []
        for fold in range(settings.folds):
            training = np.flatnonzero(folds != fold)
            found = np.full(len(groups), -1)
            count = min(settings.inner_folds, len(np.unique(groups[training])))
            found[training] = make_folds(strata[training], groups[training], count, seed + 1 + fold)
            inner.append(found)
        generator = np.random.default_rng(seed)
        permutations = [
            [permuted(target, groups, generator) for _ in range(settings.permutations)] for target in targets
        ]
        return cls(targets, controls, groups, folds, inner, permutations, counts, settings, seed)


@dataclass(frozen=True)
class ProbeResult:
    """A probe at one cell, and what it is to be compared with."""

    target: str
    scores: Scores
    low: float
    high: float
    majority: float
    permutation_auroc: float
    permutation_high: float
    control_accuracy: float
    strength: float
    n: int
    samples: int
    chances: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class FoldModel:
    """The probes of one outer fold, in the coordinates of the raw features: logits are x · weights + intercepts."""

    weights: list[torch.Tensor]
    problems: list[Problem]


def run_cell(
    features: torch.Tensor, basis: Basis, rows: np.ndarray, design: Design
) -> tuple[list[ProbeResult], list[FoldModel]]:
    """Fit and score every target at one cell.

    Args:
        features: (n, d), float32.
        basis: of the rows that count.
        rows: which of them count here.
        design: targets, folds and settings.

    Returns:
        a result for each target, and the models of the outer folds, each with a problem for each target.
    """
    targets = [target.masked(rows) for target in design.targets]
    controls = [target.masked(rows) for target in design.controls]
    strengths = _choose_strengths(features, rows, basis, targets, design)
    shuffled = [[each.masked(rows) for each in permutations] for permutations in design.permutations]
    chances = [np.zeros((len(rows), len(target.classes))) for target in targets]
    control_chances = [np.zeros_like(each) for each in chances]
    permuted_chances = [[np.zeros_like(each) for _ in range(design.settings.permutations)] for each in chances]
    models = []
    for fold in range(design.settings.folds):
        training, test = (design.folds != fold) & rows, (design.folds == fold) & rows
        rotated = standardise(features, features[torch.from_numpy(training)]) @ basis.rotation
        inside, outside = rotated[torch.from_numpy(training)], rotated[torch.from_numpy(test)]
        real = [_problem(t, training, c) for t, c in zip(targets, strengths[fold], strict=True)]
        fake = [_problem(t, training, c) for t, c in zip(controls, strengths[fold], strict=True)]
        weights = fit(inside, basis.spectrum, [*real, *fake], *FINAL)
        found = [part.numpy() for part in probabilities(outside, weights, [*real, *fake])]
        for number in range(len(targets)):
            chances[number][test] = found[number]
            control_chances[number][test] = found[len(targets) + number]
        models.append(_raw_model(weights, real, features[torch.from_numpy(training)], basis))
        noise = [
            _problem(each, training, strengths[fold][number])
            for number, permutations in enumerate(shuffled)
            for each in permutations
        ]
        if noise:
            weights = fit(inside, basis.spectrum, noise, *BASELINE)
            parts = iter(probabilities(outside, weights, noise))
            for each in permuted_chances:
                for target_chances in each:
                    target_chances[test] = next(parts).numpy()
    return [
        _result(
            number, target, chances, control_chances, permuted_chances, shuffled, controls, strengths, models, design
        )
        for number, target in enumerate(targets)
    ], models


def _problem(target: Target, rows: np.ndarray, strength: float) -> Problem:
    return Problem(torch.from_numpy(target.labels[rows]), len(target.classes), strength)


def _choose_strengths(
    features: torch.Tensor, rows: np.ndarray, basis: Basis, targets: list[Target], design: Design
) -> list[list[float]]:
    """For each outer fold and target the strength with the smallest held-out log loss inside the training rows."""
    grid = design.settings.strengths
    chosen = []
    for inner in design.inner:
        losses = np.zeros((len(targets), len(grid)))
        for fold in range(inner.max() + 1):
            training, test = (inner >= 0) & (inner != fold) & rows, (inner == fold) & rows
            if len(grid) == 1:
                break
            rotated = standardise(features, features[torch.from_numpy(training)]) @ basis.rotation
            problems = [_problem(target, training, strength) for target in targets for strength in grid]
            weights = fit(rotated[torch.from_numpy(training)], basis.spectrum, problems, *SEARCH)
            held_out = probabilities(rotated[torch.from_numpy(test)], weights, problems)
            for number, part in enumerate(held_out):
                target = targets[number // len(grid)]
                labels = torch.from_numpy(target.labels[test])
                known = labels >= 0
                picked = part[known].gather(1, labels[known][:, None]).clamp(min=1e-9)
                losses[number // len(grid), number % len(grid)] -= float(picked.log().sum())
        chosen.append([grid[int(np.argmin(row))] for row in losses])
    return chosen


def _raw_model(weights: list[torch.Tensor], problems: list[Problem], training: torch.Tensor, basis: Basis) -> FoldModel:
    """Undo rotation and standardisation, so that the model reads raw features, also those of other cells."""
    deviation, mean = torch.std_mean(training, dim=0, correction=0)
    constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    scale = torch.where(constant, torch.inf, deviation)[:, None]
    raw = []
    for each in weights[: len(problems)]:
        own = basis.rotation @ each[:-1] / scale
        raw.append(torch.cat([own, (each[-1] - mean @ own)[None]]))
    return FoldModel(raw, problems)


def _result(
    number: int, target: Target, chances: list[np.ndarray], control_chances: list[np.ndarray],
    permuted_chances: list[list[np.ndarray]], shuffled: list[list[Target]], controls: list[Target],
    strengths: list[list[float]], models: list[FoldModel], design: Design,
) -> ProbeResult:  # fmt: skip
    folds, labels = design.folds, target.labels
    found = scores(chances[number], labels, folds)
    low, high = auroc_interval(chances[number], labels, folds, design.counts)
    noise = [
        auroc(each, other.labels, folds) for each, other in zip(permuted_chances[number], shuffled[number], strict=True)
    ]
    control = controls[number]
    known = labels >= 0
    weights = torch.stack([model.weights[number][:-1] for model in models]).mean(0)
    return ProbeResult(
        target=target.name,
        scores=found,
        low=low,
        high=high,
        majority=float(np.bincount(labels[known]).max() / known.sum()),
        permutation_auroc=float(np.mean(noise)) if noise else float("nan"),
        permutation_high=float(np.max(noise)) if noise else float("nan"),
        control_accuracy=scores(control_chances[number], control.labels, folds).accuracy,
        strength=float(np.median([each[number] for each in strengths])),
        n=int(known.sum()),
        samples=len(np.unique(design.groups[known])),
        chances=chances[number],
        weights=weights.T.numpy(),
    )
