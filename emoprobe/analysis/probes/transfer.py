"""Whether a probe reads a state or only words: tests on texts, variants and positions that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.cell import SEARCH, Design, FoldModel
from emoprobe.analysis.probes.logistic import Basis, Problem, fit, probabilities, standardise
from emoprobe.analysis.probes.scores import scores
from emoprobe.analysis.probes.targets import Target


def position_transfer(
    here: dict[str, torch.Tensor], models: dict[str, list[FoldModel]], empty: dict[str, np.ndarray], design: Design
) -> Iterator[dict[str, Any]]:
    """Train at one position, test at another, on the samples that the fold holds out."""
    for train, fold_models in models.items():
        for test, features in here.items():
            chances = [np.zeros((len(features), len(target.classes))) for target in design.targets]
            for fold, model in enumerate(fold_models):
                rows = torch.from_numpy(design.folds == fold)
                found = probabilities(features[rows], model.weights, model.problems)
                for number, part in enumerate(found):
                    chances[number][rows.numpy()] = part.numpy()
            for number, target in enumerate(design.targets):
                labels = np.where(empty[test], -1, target.labels)
                yield _row("position", target, train, chances[number], labels, design.folds) | {"test": test}


@dataclass(frozen=True)
class Material:
    """What the probes of one layer, hook point and position are trained and tested on.

    `features` is (n, d), `rows` says which of them count, `table` has a row for each; `strengths` are those that the
    cross-validated probes of the same cell chose, by target.
    """

    features: torch.Tensor
    basis: Basis
    rows: np.ndarray
    table: pd.DataFrame
    design: Design
    strengths: dict[str, float]


def held_out_text(material: Material) -> Iterator[dict[str, Any]]:
    """Train on all paraphrases but one, test on that one; texts go by sample, so the samples differ, too."""
    table, rows = material.table, material.rows
    paraphrases = table["paraphrase"].astype("Int64")
    known = paraphrases.notna().to_numpy()
    texts = sorted(int(value) for value in paraphrases.dropna().unique())
    if len(texts) < 2:
        return
    # A variant without texts is in both halves by the paraphrase that its sample would have got.
    by_sample = table.assign(p=paraphrases).groupby("sample_id")["p"].max()
    own = table["sample_id"].map(by_sample).astype("Int64")
    for text in texts:
        test = ((own == text).fillna(False).to_numpy(dtype=bool)) & rows
        training = ((own != text).fillna(False).to_numpy(dtype=bool)) & rows
        if known[test].any() and training.any():
            yield from _trained(material, training, test, "text", f"paraphrase {text}")


def held_out_variant(material: Material) -> Iterator[dict[str, Any]]:
    """Train valence (and correctness) without one variant, test on it, on samples that were held out as well."""
    rows, design = material.rows, material.design
    targets = [target for target in design.targets if target.name != "variant"]
    variants = material.table["variant"].to_numpy()
    if len(np.unique(variants)) < 3 or not targets:
        return
    test_samples = design.folds == 0
    for variant in dict.fromkeys(variants):
        own = variants == variant
        training, test = rows & ~own & ~test_samples, rows & own & test_samples
        yield from _trained(material, training, test, "variant", str(variant), [target.name for target in targets])


def _trained(
    material: Material, training: np.ndarray, test: np.ndarray, kind: str, name: str, names: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    targets = [
        target
        for target in material.design.targets
        if (names is None or target.name in names)
        and len(np.unique(target.labels[training & target.known])) == len(target.classes)
        and (test & target.known).any()
    ]
    if not targets:
        return
    inside, outside = torch.from_numpy(training), torch.from_numpy(test)
    rotated = standardise(material.features, material.features[inside]) @ material.basis.rotation
    problems = [
        Problem(torch.from_numpy(target.labels[training]), len(target.classes), material.strengths[target.name])
        for target in targets
    ]
    weights = fit(rotated[inside], material.basis.spectrum, problems, *SEARCH)
    for target, part in zip(targets, probabilities(rotated[outside], weights, problems), strict=True):
        labels = target.labels[test]
        yield _row(kind, target, name, part.numpy(), labels, np.zeros(len(labels)))


def _row(
    kind: str, target: Target, train: str, chances: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> dict[str, Any]:
    found = scores(chances, labels, folds)
    return {
        "kind": kind,
        "target": target.name,
        "train": train,
        "n": int((labels >= 0).sum()),
        "accuracy": found.accuracy,
        "auroc": found.auroc,
    }
