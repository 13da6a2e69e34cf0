"""The table `steering_tests`: one test of each direction that is no control."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from emoprobe.analysis.conclusion import Conclusion, Reason, finite
from emoprobe.analysis.estimates import MIN_QUESTIONS, difference
from emoprobe.analysis.statistics import CONFIDENCE, LEVEL, holm
from emoprobe.analysis.steering.direction_ranking import DirectionRanking
from emoprobe.analysis.steering.effect_grid import CONTROLS, PRIMARY_OUTCOME, EffectGrid, Flags
from emoprobe.analysis.steering.preregistration import controls_needed, shuffled_needed
from emoprobe.results.statement import Verdict
from emoprobe.steering.grid import LEAST_TEXTS

FAR = 1e9
# Weights of a probe are large where activations hardly vary. Where a model reads there, they do more than random
# directions and differences of means do, whatever the labels.
PROBE = "probe"
# The noise is known from these questions alone: where the strong ones happen to be missing, both it and the effect look
# small. Reckoned with 90 %, an effect is found with 80 % then as well.
ASSURANCE = 0.9


def candidates(grid: EffectGrid) -> list[int]:
    """The numbers of the directions that are no controls."""
    return [number for number, direction in enumerate(grid.directions) if direction.family not in CONTROLS]


def direction_rows(
    grid: EffectGrid, flags: Flags, rankings: Mapping[int, DirectionRanking], texts: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Rows of the table, in the order of the directions.

    Args:
        grid: the trajectories.
        flags: which cells are coherent, on all questions of a direction.
        rankings: each tested direction beside its controls, by number.
        texts: tone → number of texts that its directions were fitted on; 0, or none, where that is not known.
    """
    family_sizes = Counter(grid.directions[number].family for number in rankings)
    rows = [
        _row(grid, number, _cells(grid, number, ranking, flags), ranking, family_sizes, texts)
        for number, ranking in rankings.items()
    ]
    for family in family_sizes:
        members = [row for row in rows if row["family"] == family]
        # A direction that cannot be judged takes its place in the correction, and eases none of the others'.
        known = [
            row["p"] if row["texts"] is None or row["texts"] >= LEAST_TEXTS or math.isnan(row["p"]) else 1.0
            for row in members
        ]
        for row, corrected in zip(members, holm(known), strict=True):
            row["p_holm"] = float(corrected)
            row["verdict"] = conclude_direction(row).verdict.value
    return rows


def _cells(grid: EffectGrid, number: int, ranking: DirectionRanking, flags: Flags) -> np.ndarray:
    """Return the searched cells of a ranking: coherent on the compared questions, and on all of the direction's."""
    everywhere = [bool(flags[grid.held[number][place]]) for place in ranking.places]
    searched: np.ndarray = ranking.flags[0] & np.array(everywhere, dtype=bool)
    return searched


def _row(
    grid: EffectGrid,
    number: int,
    searched: np.ndarray,
    ranking: DirectionRanking,
    family_sizes: Mapping[str, int],
    texts: Mapping[str, int],
) -> dict[str, Any]:
    direction = grid.directions[number]
    family = family_sizes[direction.family]
    fitted = None if direction.tone is None else texts.get(direction.tone, 0)
    needed, more = controls_needed(family), 0 if direction.tone is None else shuffled_needed(family)
    row: dict[str, Any] = {
        "direction": direction.name,
        "family": direction.family,
        "tone": direction.tone,
        "reason": _reason(grid, number, searched, ranking, needed, more, fitted),
        "controls": ranking.controls,
        "controls_needed": needed,
        "shuffled": ranking.shuffled,
        "shuffled_needed": more,
        "texts": fitted,
        "texts_needed": None if fitted is None else LEAST_TEXTS,
        "questions": int(ranking.shared.sum(axis=-1).min()) if ranking.places else 0,
        "cells": int(searched.sum()),
        "p": math.nan,
    }
    if not ranking.places or not ranking.controls:
        return row
    sizes = np.where(searched, ranking.standardised[0], 0.0)
    size = float(sizes.max(initial=0.0))
    row |= {"p": ranking.p(size), "p_random": ranking.p_random(size), "p_shuffled": ranking.p_shuffled(size)}
    if not searched.any():
        return row
    best = int(np.argmax(np.where(searched, sizes, -1.0)))  # also where a direction does nothing in any of them
    place = ranking.places[best]
    cell = grid.held[number][place]
    changes = grid.changes(PRIMARY_OUTCOME)[cell]
    # Of one cell alone it would not reach far enough where few questions make up most of a mean; that of many does.
    together = 1 - (1 - CONFIDENCE) / row["cells"]
    effect = difference(changes, None, None, np.nan, False, grid.groups, together, skewed=row["cells"] == 1)
    correct = difference(grid.changes("correct")[cell], None, None, np.nan, True, grid.groups)
    known = changes[~np.isnan(changes)]
    line = [other for other in range(len(searched)) if searched[other] and ranking.places[other].line == place.line]
    doses = [ranking.places[other].dose for other in line]
    return row | {
        **place._asdict(),
        "n": len(known),
        "estimate": float(effect.value),
        "low": float(effect.low),
        "high": float(effect.high),
        "wrong_way": float((known * effect.value < 0).mean()),
        "correct": float(correct.value),
        "correct_low": float(correct.low),
        "correct_high": float(correct.high),
        "dose_low": min(0.0, *doses),
        "dose_high": max(0.0, *doses),
        **_detectable(grid, number, searched, ranking, LEVEL / family),
    }


def _reason(
    grid: EffectGrid,
    number: int,
    searched: np.ndarray,
    ranking: DirectionRanking,
    needed: int,
    more: int,
    texts: int | None,
) -> str | None:
    """Return why no verdict can be reached."""
    if not any(place.operation == "add" for place in grid.held[number]):
        return "nothing was added along it"
    if grid.directions[number].family == PROBE:
        return "no controls are fitted as a probe is: shuffled labels give differences of means alone"
    if texts == 0:
        return f"it takes {LEAST_TEXTS} texts to fit on, and it is not known that labels were shuffled over so many"
    if texts is not None and texts < LEAST_TEXTS:
        return f"it takes {LEAST_TEXTS} texts to fit on, and the questions of the fitting half have {texts}"
    if not ranking.controls:
        return "no random direction ran the same grid"
    if ranking.controls < needed:
        return f"{needed} random directions are needed, {ranking.controls} ran the same grid"
    if ranking.shuffled < more:
        return f"{more} shuffled-label directions are needed, {ranking.shuffled} ran the same grid"
    if not ranking.places:
        return f"the direction and the random ones share fewer than {MIN_QUESTIONS} questions"
    return None if searched.any() else "the text is not coherent at any dose"


class DirectionReason(Reason):
    """Reason for the verdict on a direction."""

    NOT_COMPARED = Verdict.NOTE, "there is no effect to rank"
    OUT_OF_REACH = Verdict.NOTE, "too few controls or questions for a verdict"
    RAISES = Verdict.FOUND, "log p(gold) rises by more than along the controls"
    LOWERS = Verdict.FOUND, "log p(gold) falls by more than along the controls"
    CONTROLS_AS_FAR = Verdict.NOT_FOUND, "controls move the answers as far"
    INTERVAL_INCLUDES_0 = Verdict.NOT_FOUND, "the interval over all coherent cells includes 0"


def conclude_direction(row: Mapping[str, Any]) -> Conclusion:
    """Return the conclusion of a row of the table `steering_tests`; missing values are None or NaN.

    The estimate is the largest effect on log p(gold), in nats.
    """
    estimate, low, high = (finite(row, name) for name in ("estimate", "low", "high"))
    if estimate is None:
        reason = DirectionReason.NOT_COMPARED
    elif row["reason"] is not None:
        reason = DirectionReason.OUT_OF_REACH
    elif row["p_holm"] > LEVEL + 1e-9:
        reason = DirectionReason.CONTROLS_AS_FAR
    elif low is None or high is None or low <= 0 <= high:
        reason = DirectionReason.INTERVAL_INCLUDES_0
    else:
        reason = DirectionReason.RAISES if estimate > 0 else DirectionReason.LOWERS
    p = None if reason.verdict is Verdict.NOTE else finite(row, "p_holm")
    return Conclusion(reason, estimate, low, high, p, row.get("n"))


def _detectable(
    grid: EffectGrid, number: int, searched: np.ndarray, ranking: DirectionRanking, level: float
) -> dict[str, Any]:
    """The least effect that would have been found with 80 %, and where.

    What is observed of an effect D scatters about it by the questions' noise and, as questions answer more or less
    strongly to anything, in proportion to D: by √(s² + k² D²). Both parts are those of the controls, so that the cell
    is not one where this direction's happen to look small. The effect has to exceed what the controls do, at the first
    step of the correction, and the width of its own interval.
    """
    rows = np.array([grid.held[number][place] for place in ranking.places])
    others = ranking.changes[1:]
    # A direction with such an effect is the farthest, and the scale is that of all.
    beside = replace(ranking, effects=np.vstack([np.full((1, len(rows)), FAR), ranking.effects[1:]]))
    threshold = beside.critical(level) * beside.scale
    asked = (~np.isnan(grid.changes(PRIMARY_OUTCOME)[rows])).sum(axis=-1)
    more = np.sqrt(ranking.shared.sum(axis=-1) / np.maximum(asked, 1))
    strength = np.sqrt((others**2).mean(axis=0))
    typical = np.nanmean(strength, axis=-1)

    def scatter(confidence: float, skewed: bool) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.sqrt((_above(grid, others, confidence, skewed) ** 2).mean(axis=0)),
            _above(grid, strength, confidence, skewed) / np.where(typical > 0, typical, 1.0),
        )

    noise, unequal = scatter(2 * ASSURANCE - 1, True)
    wide, uneven = scatter(1 - (1 - CONFIDENCE) / max(1, int(searched.sum())), False)
    alone = _reach(np.zeros_like(noise), (noise + wide) * more, (unequal + uneven) * more)
    sizes = np.maximum(_reach(threshold, noise, unequal), alone)
    # Where nothing scatters at all, nothing is known of what an effect would have to exceed.
    sizes = np.where(searched & np.isfinite(sizes) & (sizes > 0), sizes, np.inf)
    best = int(np.argmin(sizes))
    if not np.isfinite(sizes[best]):
        return {"detectable": math.nan}
    place = ranking.places[best]
    return {"detectable": float(sizes[best]), "detectable_layers": place.layers, "detectable_dose": place.dose}


def _above(grid: EffectGrid, values: np.ndarray, confidence: float, skewed: bool) -> np.ndarray:
    """Return the distance from a mean over questions to the upper end of its interval."""
    estimate = difference(values, None, None, np.nan, False, grid.groups, confidence, skewed)
    short: np.ndarray = np.nan_to_num(estimate.high - estimate.value)
    return short


def _reach(threshold: np.ndarray, noise: np.ndarray, unequal: np.ndarray) -> np.ndarray:
    """The D for which D = threshold + √(noise² + unequal² D²); infinite where there is none."""
    rest = np.where(unequal < 1, 1 - unequal**2, np.nan)
    known = np.where(np.isfinite(threshold), threshold, np.nan)
    effect = (known + np.sqrt(known**2 - rest * (known**2 - noise**2))) / rest
    return np.where(np.isnan(effect), np.inf, effect)
