"""The tests of the probes: what follows from the configuration alone, and how a row of results is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from emoprobe.analysis.conclusion import Conclusion, Reason, finite
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import LEAST_VARIANTS, ProbeTarget
from emoprobe.config.science.capture import THOUGHT_POSITIONS, turn_position
from emoprobe.results.record import Record
from emoprobe.results.statement import Verdict

# Groups of questions. An interval over fewer would not cover, and permutations alone find correctness falsely in 7 % of
# 600 simulated experiments with 12 questions, and in 8 % of 600 with about 10 groups: residuals of so few questions are
# not exchangeable, which the test assumes; see `tests.calibration.probe_limits`.
LEAST_UNITS = 20
# Questions with right and wrong answers. Where right answers lie 4 standard deviations from wrong ones, the test within
# questions rejects in 93 % of 60 simulated runs with 12 to 20 such questions and one draw, in 77 % of 35 with 8 to 11
# and in 61 % of 49 with fewer; see `tests.calibration.probe_limits`.
LEAST_MIXED = 12
FOUND_RULE = (
    "found where p ≤ alpha; p is that of the permutations; of valence after what prompt tokens, words, punctuation and "
    "order of capture, and at response positions length, truncation and format, predict with slopes from within "
    "variants is taken out, and not separable where they differ too much between valences for that; of correctness p "
    "is the largest of that, of the same on answers that were not cut off and of the p by the interval of what the "
    "activations add to length, truncation and format of the answer and to length and numbers of the question, so that "
    "it lies above 0 (below 20 groups of questions there is no interval and no test); within questions the same of "
    "answers that were not cut off, with labels permuted within questions (below 20 groups permutations decide alone)"
)
TestedTarget = ProbeTarget | Literal["correct_within"]
CELL_RULE = "nested cross-validation over all layers, hook points and positions; p over the largest of all cells"


class ProbeTest(Record):
    """The test of one target.

    `units` counts what is independent: variants of each class for valence, questions for correctness. `within` is the
    label that permutations keep: the arousal, where every variant with a valence has one. `permutations` counts those
    that are drawn, the real labels among them; `exact` says that they are all there are. A target without a test has no
    smallest p; `reason` says why, or why no verdict but `note` can come of it.
    """

    target: TestedTarget
    classes: dict[str, int] | None = None
    unit: str
    units: int
    within: Literal["arousal"] | None = None
    permutations: int | None = None
    exact: bool = False
    smallest_p: float | None = None
    reachable: bool
    reason: str | None = None


class ProbeDesign(Record):
    """All tests of the probes, how each one's cell is chosen and when it is found; not corrected across targets."""

    alpha: float = LEVEL
    cell_rule: str = CELL_RULE
    found_rule: str = FOUND_RULE
    tests: list[ProbeTest]


def probe_plan(config: Config) -> ProbeDesign | None:
    """The tests that follow from a configuration; None where nothing is captured."""
    if not config.capture.enabled or config.capture.positions == "all":
        return None
    questions = min(config.dataset.samples, config.capture.samples or config.dataset.samples)
    plans = {
        "variant": ProbeTest(
            target="variant",
            unit="question",
            units=questions,
            reachable=False,
            reason="a manipulation check: prompts that differ are bound to be told apart",
        ),
        "valence": valence_test(_valences(config), config.probes.permutations),
        "correct": correct_test(questions, config.probes.permutations, config.probes.folds),
    }
    tests = [plans[target] for target in config.probes.targets]
    if "correct" in config.probes.targets and any(is_response(str(name)) for name in config.capture.positions):
        tests.append(within_test(questions, config.probes.permutations))
    return ProbeDesign(tests=tests)


def is_response(position: str) -> bool:
    """Return whether a position lies in or after an answer, thoughts included, where more than a question is known."""
    in_turn = turn_position(position)
    later = in_turn is not None and in_turn != (1, "last_prompt")
    return later or position.startswith("response") or position in THOUGHT_POSITIONS


def _valences(config: Config) -> list[tuple[int, int]]:
    """Count the negative and positive variants of each arousal; of all together where one of them has none."""
    known = [variant for variant in config.variants.values() if variant.valence in ("negative", "positive")]
    arousals = {variant.arousal for variant in known}
    strata = [None] if None in arousals or not arousals else sorted(map(str, arousals))

    def count(valence: str, stratum: str | None) -> int:
        return sum(variant.valence == valence and stratum in (None, variant.arousal) for variant in known)

    return [(count("negative", stratum), count("positive", stratum)) for stratum in strata]


def count_splits(strata: Sequence[tuple[int, int]]) -> int:
    """Return how many ways there are to deal classes of these sizes within strata, up to an exchange of all signs."""
    ways = math.prod(math.comb(negative + positive, negative) for negative, positive in strata)
    return max(1, ways // 2) if all(negative == positive for negative, positive in strata) else ways


def valence_test(strata: Sequence[tuple[int, int]], permutations: int) -> ProbeTest:
    """Return the test of valence: permutations over variants within strata, all where no more than are asked for.

    Args:
        strata: numbers of negative and positive variants of each arousal, or of all variants.
        permutations: permutations at most, the real labels left out.
    """
    negative, positive = (sum(counts) for counts in zip(*strata, strict=True))
    ways = count_splits(strata)
    exact = ways <= permutations + 1
    drawn = ways if exact else permutations + 1
    reachable = min(negative, positive) >= LEAST_VARIANTS and 1 / drawn <= LEVEL
    reason = None
    if not reachable:
        reason = (
            f"{negative} negative and {positive} positive variants: a verdict needs at least {LEAST_VARIANTS} of each"
        )
        if min(negative, positive) >= LEAST_VARIANTS:
            least = math.ceil(1 / LEVEL)
            reason += f", and there are {ways} ways to exchange valences within each arousal, of {least} at least"
    return ProbeTest(
        target="valence",
        classes={"negative": negative, "positive": positive},
        unit="variant",
        units=negative + positive,
        within="arousal" if len(strata) > 1 else None,
        permutations=drawn,
        exact=exact,
        smallest_p=1 / drawn,
        reachable=reachable,
        reason=reason,
    )


def correct_test(questions: int, permutations: int, folds: int) -> ProbeTest:
    """The test of correctness: blocks of questions are permuted. Whether both classes occur shows afterwards.

    Args:
        questions: groups of questions or, without groups, questions.
        permutations: of them, besides the real labels.
        folds: of the cross-validation.
    """
    needed = max(folds, LEAST_UNITS)
    reachable = questions >= needed and 1 / (permutations + 1) <= LEVEL
    return ProbeTest(
        target="correct",
        unit="question",
        units=questions,
        permutations=permutations + 1,
        smallest_p=1 / (permutations + 1),
        reachable=reachable,
        reason=None
        if reachable
        else f"{questions} question{'s' * (questions != 1)} or groups of them; {needed} are needed",
    )


def within_test(mixed: int, permutations: int) -> ProbeTest:
    """The test of correctness within questions, of which `mixed` have right and wrong answers."""
    reachable = mixed >= LEAST_MIXED and 1 / (permutations + 1) <= LEVEL
    return ProbeTest(
        target="correct_within",
        unit="question",
        units=mixed,
        permutations=permutations + 1,
        smallest_p=1 / (permutations + 1),
        reachable=reachable,
        reason=None
        if reachable
        else f"{mixed} question{'s' * (mixed != 1)} with right and wrong answers; {LEAST_MIXED} are needed",
    )


class ProbeReason(Reason):
    """Reason for the verdict on a probe."""

    NOT_PROBED = Verdict.NOTE, "there is no probe"
    OUT_OF_REACH = Verdict.NOTE, "no permutation test of this size can reject"
    MANIPULATION_CHECK = Verdict.NOTE, "prompts that differ are bound to be told apart"
    READABLE = Verdict.FOUND, "every test rejects"
    CHANCE = Verdict.NOT_FOUND, "permuted labels do as well"
    NOT_SEPARABLE = Verdict.NOT_SEPARABLE, "the valences differ too much in what else the prompts and answers are like"
    NO_GAIN = Verdict.NOT_FOUND, "activations add nothing to the area of the nuisance features"
    INTERVAL_INCLUDES_0 = Verdict.NOT_FOUND, "the interval of what activations add includes 0"
    TRUNCATED_ONLY = Verdict.NOT_FOUND, "the test on answers that were not cut off does not reject"


def conclude_probe(row: Mapping[str, Any]) -> Conclusion:
    """Return the conclusion of a row of the table `probe_tests`, with None for what is missing.

    The estimate is the area under the curve; of correctness it is what activations add to that of the nuisance
    features.
    """
    reason, correct = _probe_reason(row), row["target"] in ("correct", "correct_within")
    tested = reason.verdict in (Verdict.FOUND, Verdict.NOT_FOUND)
    return Conclusion(
        reason,
        estimate=finite(row, "added" if correct else "auroc"),
        low=finite(row, "added_low") if correct else None,
        high=finite(row, "added_high") if correct else None,
        p=finite(row, "p") if tested else None,
        n=None if row.get("n") is None else int(row["n"]),
    )


def _probe_reason(row: Mapping[str, Any]) -> ProbeReason:
    if finite(row, "auroc") is None:
        return ProbeReason.NOT_PROBED
    if row["target"] == "variant":
        return ProbeReason.MANIPULATION_CHECK
    if row["reason"] is not None:
        return ProbeReason.OUT_OF_REACH
    if row["target"] == "valence":
        if row["p"] is None:
            return ProbeReason.NOT_SEPARABLE
        return ProbeReason.CHANCE if row["p"] > LEVEL else ProbeReason.READABLE
    if row["p"] <= LEVEL:
        return ProbeReason.READABLE
    if row["p_permuted"] > LEVEL:
        return ProbeReason.CHANCE
    gains = [gain for name in ("added", "added_untruncated") if (gain := finite(row, name)) is not None]
    if min(gains) <= 0:
        return ProbeReason.NO_GAIN
    low = finite(row, "added_low")
    return ProbeReason.INTERVAL_INCLUDES_0 if low is not None and low <= 0 else ProbeReason.TRUNCATED_ONLY
