"""One position: the rows that have activations there, and what all layers share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.correct import CorrectDesign, has_both_classes
from emoprobe.analysis.probes.discriminant import Cells, variant_moments
from emoprobe.analysis.probes.nuisance import is_response, nuisance_features, with_variants
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.probes.valence import ValenceDesign, ValenceResult, probe_valence
from emoprobe.config.science.analysis import Probes


@dataclass(frozen=True)
class ProbedPosition:
    """What the probes at one position need besides the activations.

    `rows` are the rows without a stand-in there. `valence`, `correct` and `untruncated` are None where there is nothing
    to probe; `untruncated` also where no answer was cut off. `reasons` says why, by target.
    """

    name: str
    rows: np.ndarray
    design: RowCodes
    valence: ValenceDesign | None
    valence_nuisance: ValenceResult | None
    correct: CorrectDesign | None
    untruncated: CorrectDesign | None
    any_truncated: bool
    reasons: dict[str, str]

    @classmethod
    def of(cls, name: str, table: pd.DataFrame, whole: RowCodes, empty: np.ndarray, settings: Probes) -> ProbedPosition:
        """For the rows of a table, of which `empty` ones have a stand-in."""
        rows = np.flatnonzero(~empty)
        design, own = whole.take(rows), table.iloc[rows]
        reasons: dict[str, str] = {}
        nuisance = nuisance_features(own, design, is_response(name))
        valence = valence_nuisance = correct = untruncated = None
        any_truncated = bool((design.truncated & (design.correct >= 0)).any())
        if "valence" in settings.targets:
            valence = ValenceDesign.of(design, settings.permutations) if design.folds > 2 else None
            if valence is None:
                reasons["valence"] = _why_no_valence(whole)
            else:
                cells = Cells.of(torch.from_numpy(nuisance.astype(np.float32))[None])
                real = ValenceDesign(valence.design, valence.rows, valence.signs, valence.splits[:1])
                valence_nuisance = probe_valence(cells, real, variant_moments(cells, design, settings.shrinkage))
        if "correct" in settings.targets:
            features = with_variants(nuisance, design)
            known = np.flatnonzero(design.correct >= 0)
            finished = np.flatnonzero((design.correct >= 0) & ~design.truncated)
            reason = has_both_classes(design.take(known), settings.min_per_class)
            if reason is not None:
                reasons["correct"] = reason
            else:
                correct = CorrectDesign.of(design, features, known, settings.permutations)
                if any_truncated and has_both_classes(design.take(finished), settings.min_per_class) is None:
                    untruncated = CorrectDesign.of(design, features, finished, settings.permutations)
        return cls(name, rows, design, valence, valence_nuisance, correct, untruncated, any_truncated, reasons)


def positions_of(
    table: pd.DataFrame, design: RowCodes, empty: dict[str, np.ndarray], settings: Probes
) -> list[ProbedPosition]:
    """Every position that any row has; those with the same rows and nuisance features share what they are made of."""
    made: dict[tuple[bytes, bool], ProbedPosition] = {}
    found = []
    for name, missing in empty.items():
        if missing.all():
            continue
        key = (missing.tobytes(), is_response(name))
        if key not in made:
            made[key] = ProbedPosition.of(name, table, design, missing, settings)
        found.append(replace(made[key], name=name))
    return found


def _why_no_valence(design: RowCodes) -> str:
    negative, positive = int((design.valence < 0).sum()), int((design.valence > 0).sum())
    if min(negative, positive) < 2:
        return f"{negative} negative and {positive} positive variants: one of each is left out, so two are needed"
    return "too few questions, or groups of them, or a variant without activations at any position"
