"""What will be tested of directions, known before anything is steered."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from emoprobe.analysis.statistics import LEVEL
from emoprobe.analysis.steering.effect_grid import CONTROLS, PRIMARY_OUTCOME, RANDOM, SHUFFLED, STEERING_OUTCOMES
from emoprobe.config.experiment import Config
from emoprobe.results.record import Record
from emoprobe.steering.grid import LEAST_TEXTS, directions_of

# So that the smallest p, 1 / (1 + 39), is half of the level.
MIN_CONTROLS = 39
STATISTIC = (
    "largest |effect| on the primary outcome over layers, doses and variants with coherent text, in each divided by "
    "the median of the compared directions' and its own; p by rank among the random directions and, for a tone's, by "
    "that among the shuffled-label directions of all tones, whichever is larger, on the same cells and questions"
)
FOUND_RULE = (
    "found where p, corrected over the directions of a family (Holm), is at most the level and the interval over all "
    "coherent cells together excludes 0"
)


class SteeringTests(Record):
    """Evaluation of directions: the comparisons, the rule for `found`, and the samples that it needs.

    `directions` counts the tested ones of each family, `controls_needed` the random ones and `shuffled_needed` the
    shuffled-label ones without which none of a family can be found; `reachable` says whether there are so many.
    `texts_needed` is how many texts a tone's direction has to be fitted on.
    """

    primary_outcome: str = PRIMARY_OUTCOME
    secondary_outcomes: list[str]
    level: float = LEVEL
    statistic: str = STATISTIC
    found_rule: str = FOUND_RULE
    coherence: dict[str, Any]
    layers: Any
    doses: list[float]
    directions: dict[str, int]
    random_directions: int
    controls_needed: dict[str, int]
    shuffled_directions: int
    shuffled_needed: dict[str, int]
    texts_needed: int = LEAST_TEXTS
    reachable: dict[str, bool]


def controls_needed(directions: int) -> int:
    """Random directions without which none of so many tested directions can be found, after the correction (Holm)."""
    return max(MIN_CONTROLS, math.ceil(directions / LEVEL - 1e-9) - 1)


def shuffled_needed(directions: int) -> int:
    """Shuffled-label directions without which none of so many tested ones that belong to tones can be found."""
    return math.ceil(directions / LEVEL - 1e-9) - 1


def planned_tests(config: Config) -> SteeringTests | None:
    """The tests that follow from a configuration; None where nothing is steered."""
    if not config.steering.enabled:
        return None
    directions = directions_of(config)
    counts: Counter[str] = Counter(direction.family for direction in directions)
    tested = {family: count for family, count in counts.items() if family not in CONTROLS}
    needed = {family: controls_needed(count) for family, count in tested.items()}
    of_tones = {direction.family for direction in directions if direction.tone is not None}
    more = {family: shuffled_needed(count) if family in of_tones else 0 for family, count in tested.items()}
    return SteeringTests(
        secondary_outcomes=[outcome for outcome in STEERING_OUTCOMES if outcome != PRIMARY_OUTCOME],
        coherence=config.steering.coherence.content(),
        layers=config.steering.layers,
        doses=config.steering.doses,
        directions=tested,
        random_directions=counts[RANDOM],
        controls_needed=needed,
        shuffled_directions=counts[SHUFFLED],
        shuffled_needed=more,
        reachable={family: counts[RANDOM] >= needed[family] and counts[SHUFFLED] >= more[family] for family in tested},
    )
