"""Which doses leave the text a text: not much less likely to the unedited model, and not much more repetitive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emoprobe.analysis.estimates import Floats
from emoprobe.analysis.steering.effect_grid import EffectGrid, SteeringCell

Flags = npt.NDArray[np.bool_]

# An empty completion has no perplexity: a dose that silences the model more often than this is not coherent.
LEAST_WITH_TEXT = 0.9


@dataclass(frozen=True)
class Limits:
    """How far the text may be from the unsteered one.

    `max_perplexity` bounds the geometric mean over questions of the ratio of perplexities, `max_repetition` the
    mean rise of the share of repeated n-grams.
    """

    max_perplexity: float
    max_repetition: float


def coherent(grid: EffectGrid, limits: Limits) -> Flags:
    """Shape (cells,): whether the text is within the limits at this dose and at all smaller ones of its sign."""
    asked = ~np.isnan(grid.changes("completion_tokens"))
    flags = within(grid.changes("perplexity"), grid.changes("repetition"), asked, limits)
    found = np.zeros_like(flags)
    for number in range(len(grid.directions)):
        own = np.flatnonzero(grid.owner == number)
        found[own] = unbroken([grid.places[row] for row in own], flags[own])
    return found


def within(log_ratio: Floats, repetition: Floats, asked: Flags, limits: Limits) -> Flags:
    """Whether the text is within the limits, from changes to the unsteered texts.

    Args:
        log_ratio: shape (…, questions): change of the logarithm of perplexity, NaN where a text is empty.
        repetition: the same shape: change of the share of repeated n-grams, NaN where a text is too short to have any.
        asked: the same shape: the questions to judge by.
        limits: how far it may be.
    """
    known = asked & ~np.isnan(log_ratio)
    repeated = asked & ~np.isnan(repetition)
    count, counted = known.sum(axis=-1), np.maximum(repeated.sum(axis=-1), 1)
    ratio = np.where(known, log_ratio, 0.0).sum(axis=-1) / np.maximum(count, 1)
    rise = np.where(repeated, repetition, 0.0).sum(axis=-1) / counted
    enough = (count > 0) & (count >= LEAST_WITH_TEXT * asked.sum(axis=-1))
    found: Flags = enough & (ratio <= np.log(limits.max_perplexity)) & (rise <= limits.max_repetition)
    return found


def unbroken(places: Sequence[SteeringCell], flags: Flags) -> Flags:
    """Flags of some places of one direction, kept where those of all smaller doses of the same sign hold too.

    A text that falls apart may look well again at a larger dose: one word over and over is likely.

    Args:
        places: the places.
        flags: shape (…, places).
    """
    found = flags.copy()
    for place, one in enumerate(places):
        smaller = [
            number
            for number, other in enumerate(places)
            if other.line == one.line and other.dose * one.dose > 0 and abs(other.dose) < abs(one.dose)
        ]
        found[..., place] &= flags[..., smaller].all(axis=-1)
    return found
