"""Numbers of questions at which tests are made, registered in advance, each with its share of the level.

A test at a look of weight w compares p / w with the level, so that all looks together are wrong no more often than one
test would be (Bonferroni), whenever a run is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping

from emoprobe.config.experiment import Config
from emoprobe.results.preregistration import Preregistration

Looks = Mapping[int, float]


def looks_of(config: Config) -> dict[int, float]:
    """Return the looks that a config registers: `analysis.looks`, or the number of questions with the whole level."""
    looks = config.analysis.looks
    return {config.dataset.samples: 1.0} if looks is None else dict(sorted(looks.items()))


def registered_looks(config: Config, plan: Preregistration | None) -> dict[int, float] | None:
    """Return the looks that were registered before the answers.

    Args:
        config: of the analysis; its own looks count where there is no plan.
        plan: of the folder; None: it has none.
    """
    if plan is not None:
        return plan.registered
    return None if config.analysis.looks is None else looks_of(config)


def weight_of(looks: Looks | None, questions: int) -> float | None:
    """Return the weight of a number of questions; None: it was not registered, so that nothing is tested.

    Args:
        looks: the registered looks; None: none were, and this is the only one.
        questions: that have trajectories.
    """
    return 1.0 if looks is None else looks.get(questions)


def is_last(looks: Looks | None, questions: int) -> bool:
    """Return whether what is tested once, such as probes, is tested at this number of questions."""
    return looks is None or questions == max(looks)
