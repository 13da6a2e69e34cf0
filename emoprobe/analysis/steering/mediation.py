"""The table `steering_mediation`: how a tone's effect changes when its direction is ablated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.conclusion import Conclusion, Reason, finite
from emoprobe.analysis.estimates import BISECTIONS, Estimates, Floats, Labels, difference
from emoprobe.analysis.outcomes import PRIMARY_MEASURE
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL
from emoprobe.analysis.steering.effect_grid import (
    BAND,
    CONTROLS,
    PRIMARY_OUTCOME,
    RANDOM,
    SHARES,
    EffectGrid,
    Flags,
    SteeringCell,
)
from emoprobe.results.statement import Verdict

MEDIATED_OUTCOMES = (PRIMARY_OUTCOME, "correct")


@dataclass(frozen=True)
class Texts:
    """The text of a variant for each question; texts are the units of inference for a tone.

    `labels` has variants of several texts; those that are missing have one, or none.
    """

    labels: dict[str, Labels]

    @classmethod
    def of(cls, trajectories: pd.DataFrame, ids: Sequence[str]) -> Texts:
        """Read them off the table of the trajectories, for some questions."""
        questions = Questions(trajectories)
        places = {name: place for place, name in enumerate(questions.ids)}
        known = np.array([places.get(name, -1) for name in ids], dtype=np.int64)
        by_variant = {}
        for variant in questions.names:
            texts = questions.texts(variant)
            if texts is not None:
                labels = np.where(known >= 0, texts[known], -1)
                if len(np.unique(labels)) > 1:
                    by_variant[variant] = labels.astype(np.int64)
        return cls(by_variant)


def mediation_rows(
    grid: EffectGrid, flags: Flags, texts: Texts, references: Sequence[str], paired_tests: pd.DataFrame
) -> list[dict[str, Any]]:
    """Rows of the table.

    Args:
        grid: the trajectories.
        flags: which cells are coherent.
        texts: of the variants, on the grid's questions.
        references: the experiment's, the primary one last; the last one that was run unsteered is taken.
        paired_tests: the table of that name: only of a tone that is `different` a share is told.
    """
    there = [name for name in references if grid.unsteered(name, PRIMARY_OUTCOME) is not None]
    if not there:
        return []
    reference = there[-1]
    tests = paired_tests[(paired_tests["measure"] == PRIMARY_MEASURE) & (paired_tests["reference"] == reference)]
    shown = tests["verdict"].isin([Verdict.DIFFERENT, Verdict.DIFFERENT_HERE])
    different = set(tests.loc[shown, "variant"])
    return [
        _row(grid, texts, number, place, reference, outcome, place.variant in different)
        | {"coherent": _coherent(grid, flags, number, place, reference)}
        for number, place in _ablations(grid)
        if place.variant != reference
        for outcome in MEDIATED_OUTCOMES
    ]


class MediationReason(Reason):
    """Reason why a share of a tone's effect is given or not; an ablation is described, not tested."""

    NO_QUESTIONS = Verdict.NOTE, "no question has all of the trajectories that a comparison needs"
    SHARE = Verdict.NOTE, "the tone's own effect is shown, so a share of it is defined"
    EFFECT_NOT_SHOWN = Verdict.NOTE, "the tone's own effect is not shown"


def conclude_mediation(row: Mapping[str, Any]) -> Conclusion:
    """Return the conclusion of a row of the table `steering_mediation`, with None for what is missing.

    The estimate is the change of the tone's effect on log p(gold), in nats.
    """
    if row["n"] == 0:
        reason = MediationReason.NO_QUESTIONS
    else:
        reason = MediationReason.EFFECT_NOT_SHOWN if row["share"] is None else MediationReason.SHARE
    return Conclusion(reason, finite(row, "change"), finite(row, "low"), finite(row, "high"), n=row["n"])


def _ablations(grid: EffectGrid) -> Iterator[tuple[int, SteeringCell]]:
    """Directions that were ablated in the prompts of their own tone."""
    for number, direction in enumerate(grid.directions):
        for place in grid.held[number]:
            if place.operation == "ablate" and direction.family not in CONTROLS and direction.tone == place.variant:
                yield number, place


def _coherent(grid: EffectGrid, flags: Flags, number: int, place: SteeringCell, reference: str) -> bool:
    """Return whether the text under the ablation is coherent, in the reference as well where it is ablated there."""
    held = grid.held[number]
    return all(bool(flags[held[one]]) for one in (place, place._replace(variant=reference)) if one in held)


def _row(
    grid: EffectGrid, texts: Texts, number: int, place: SteeringCell, reference: str, outcome: str, different: bool
) -> dict[str, Any]:
    tone = place.variant
    tone_texts, reference_texts = texts.labels.get(tone), texts.labels.get(reference)
    share = outcome in SHARES
    effect, ablated, both = _contrasts(grid, number, place, reference, outcome)
    change = ablated - effect
    known = ~np.isnan(change)
    effect, ablated = np.where(known, effect, np.nan), np.where(known, ablated, np.nan)

    def estimate(values: Floats) -> Estimates:
        return difference(values, tone_texts, reference_texts, np.nan, share, grid.groups)

    before, after = estimate(effect), estimate(ablated)
    # Of shares a difference of differences lies in [-2, 2]: halved, it has the limits of one.
    moved = estimate(change / 2)
    controls = _control_changes(grid, place, reference, outcome, both, known)
    row: dict[str, Any] = {
        "tone": tone,
        "reference": reference,
        "direction": grid.directions[number].name,
        "family": grid.directions[number].family,
        "phase": place.phase,
        "layers": place.layers,
        "outcome": outcome,
        "n": int(known.sum()),
        "unit": "texts"
        if tone_texts is not None or reference_texts is not None
        else "questions"
        if grid.groups is None
        else "groups",
        "effect": float(before.value),
        "effect_low": float(before.low),
        "effect_high": float(before.high),
        "ablated": float(after.value),
        "ablated_low": float(after.low),
        "ablated_high": float(after.high),
        "reference_ablated": both,
        "change": 2 * float(moved.value),
        "low": 2 * float(moved.low),
        "high": 2 * float(moved.high),
        "controls": len(controls),
        "control_low": float(np.quantile(controls, BAND[0])) if controls else math.nan,
        "control_high": float(np.quantile(controls, BAND[1])) if controls else math.nan,
    }
    if different and (row["effect_low"] > 0 or row["effect_high"] < 0):
        row["share"], row["share_low"], row["share_high"] = _share(
            effect, change, tone_texts, reference_texts, grid.groups
        )
    return row


def _contrasts(
    grid: EffectGrid, number: int, place: SteeringCell, reference: str, outcome: str
) -> tuple[Floats, Floats, bool]:
    """Tone minus reference by question, unsteered and with the direction ablated; whether it is in both."""
    values = grid.values(outcome)
    tone, base = grid.unsteered(place.variant, outcome), grid.unsteered(reference, outcome)
    if tone is None or base is None:
        nothing = np.full(len(grid.ids), np.nan)
        return nothing, nothing, False
    there = grid.held[number].get(place._replace(variant=reference))
    ablated = values[grid.held[number][place]] - (base if there is None else values[there])
    return tone - base, ablated, there is not None


def _control_changes(
    grid: EffectGrid, place: SteeringCell, reference: str, outcome: str, both: bool, known: np.ndarray
) -> list[float]:
    """The mean change when each random direction is ablated that was, in the same prompts."""
    changes = []
    for number in grid.rows_of([RANDOM]):
        held = grid.held[number]
        if place not in held or both != (place._replace(variant=reference) in held):
            continue
        effect, ablated, _ = _contrasts(grid, number, place, reference, outcome)
        change = (ablated - effect)[known]
        if not np.isnan(change).all():
            changes.append(float(np.nanmean(change)))
    return changes


def _share(
    effect: Floats, change: Floats, tone_texts: Labels | None, reference_texts: Labels | None, groups: Labels | None
) -> tuple[float, float, float]:
    """Minus change over effect, with the interval of ratios that the test does not reject (Fieller 1954)."""
    ratio = -float(np.nanmean(change)) / float(np.nanmean(effect))

    def rejected(supposed: float) -> bool:
        left = difference(change + supposed * effect, tone_texts, reference_texts, np.nan, False, groups)
        return bool(left.p < LEVEL)

    ends = []
    for sign in (-1.0, 1.0):
        step = max(1.0, abs(ratio))
        # The interval is finite where the effect's excludes 0, which may be by another method than this one.
        for _ in range(BISECTIONS):
            if rejected(ratio + sign * step):
                break
            step *= 2
        else:
            return ratio, math.nan, math.nan
        inside, outside = 0.0, step
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if rejected(ratio + sign * middle) else (middle, outside)
        ends.append(ratio + sign * outside)
    return ratio, ends[0], ends[1]
