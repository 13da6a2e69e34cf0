"""What a verdict on directions takes, known before anything is steered."""

from __future__ import annotations

import math

from emoprobe.analysis.statistics import LEVEL

# So that the smallest p, 1 / (1 + 39), is half of the level.
MIN_CONTROLS = 39


def controls_needed(directions: int) -> int:
    """Random directions without which none of so many tested directions can be found, after the correction (Holm)."""
    return max(MIN_CONTROLS, math.ceil(directions / LEVEL - 1e-9) - 1)
