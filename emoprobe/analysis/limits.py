"""Limits of what an experiment can show: properties of its plan and data that the report has to name.

Those of its making are in `emoprobe.analysis.origin_limits`. Whether a limit applies is decided there and here;
`emoprobe.report.statements.notes` phrases it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import pandas as pd
from scipy import stats

from emoprobe.analysis.looks import Looks
from emoprobe.analysis.outcomes import MEASURES, family_prefix, primary_rows
from emoprobe.analysis.paired_tests import Scope
from emoprobe.analysis.questions import OTHER_GROUPS, Questions, unseen_share
from emoprobe.analysis.statistics import CONFIDENCE, LEVEL, POWER
from emoprobe.config.science.analysis import TONE_TEXTS
from emoprobe.config.section import CONTROL, FILLER
from emoprobe.results.preregistration import Preregistration, Registration

NOTEWORTHY = 0.1  # share of answers from which truncation and unmarked answers are named
HEADROOM = 0.05  # an accuracy this near to 0 or 1 leaves little room for a difference


class LimitKind(Enum):
    """The kinds of limits; the comments name the numbers that a limit of each kind has."""

    NO_PLAN = auto()
    PLAN_FOLLOWED = auto()  # sha256
    PLAN_DEVIATES = auto()  # sha256, deviations
    POWER = auto()  # rows: those with a detectable difference
    PLAN_HISTORY = auto()  # number, answered
    OUT_OF_REACH = auto()  # questions, power
    OWN_NOISE = auto()  # error, detectable, margin, questions, needed
    NO_LOOK = auto()  # questions, looks
    LOOK = auto()  # number, looks, weight
    FEW_TEXTS = auto()  # row: the first that needs more texts
    TEXTS_USED = auto()  # texts, needed, share, and names: variants with too few, where others have enough
    TEXTS_UNSEEN = auto()  # texts, share, others: some have too few
    TOKENS_UNMATCHED = auto()  # rows, reference, tolerance
    ONE_VARIANT = auto()  # variant
    NO_REFERENCE = auto()
    NO_FILLER = auto()
    NO_TEXT = auto()  # the primary reference is control, though there is a filler
    GROUPS = auto()  # count
    FEW_GROUPS = auto()  # count
    REPEATED = auto()  # count, ids
    NOTHING_GRADED = auto()
    ALL_WRONG = auto()
    ALL_CORRECT = auto()
    NEAR_FLOOR = auto()  # share
    NEAR_CEILING = auto()  # share
    TRUNCATED = auto()  # share, variant and most: of the variant with the largest share; graded: right or wrong
    THOUGHT_CUT_OFF = auto()  # count, total, and counts: variant → answers
    UNMARKED = auto()  # variant and most: of the variant with the largest share
    GRADED_OTHERWISE = auto()  # rows: variant, reference, lenient and strict difference
    REQUESTS_FAILED = auto()  # count, rows of the table `accuracy`
    ABSENT = auto()  # count
    SAMPLING_NOISE = auto()  # share
    ASKED = auto()  # asks: variant → how many times
    FORMAT_NOISE = auto()  # formats and tones: rows of `format_noise`; low, high, spread, reached, within
    MIXED_HARDWARE = auto()  # counts: hardware → answers
    BATCH_DEPENDENT = auto()  # counts
    BATCH_INVARIANCE_OFF = auto()  # counts, why
    GENERATED_BY_CAPTURE_SERVER = auto()  # what, counts
    UNKNOWN_ORIGIN = auto()  # missing
    FIRST_ANSWERS_DIFFER = auto()  # count, questions
    LEFTOVERS = auto()  # count
    UNREADABLE_ACTIVATIONS = auto()  # error
    NO_CONFIG = auto()
    NO_SAMPLES = auto()
    UNANSWERED = auto()  # count
    UNGRADED = auto()  # count, total
    UNKNOWN_FINISH = auto()
    TEMPLATE_TEXT = auto()  # text
    CONTROL_TOKENS = auto()  # tokens, samples
    UNPINNED = auto()  # model, urls, answered: the models that the API named → answers
    ONE_JUDGE = auto()  # judge, model
    JUDGES = auto()  # rows of the table `judges`, of one trait
    GUESS = auto()  # row of the table `judges`, of a judge that guesses the variant


@dataclass(frozen=True)
class Limit:
    """One limit: its kind, the estimate of its statement, if it has one, and the numbers that its sentence needs."""

    kind: LimitKind
    estimate: float | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


def data_limits(
    trajectories: pd.DataFrame,
    accuracy: pd.DataFrame,
    tests: pd.DataFrame,
    consistency: pd.DataFrame,
    plan: Preregistration | None,
    deviations: Sequence[str] = (),
    registrations: Sequence[Registration] = (),
    formats: pd.DataFrame | None = None,
    graded: bool = True,
) -> list[Limit]:
    """Return the limits that follow from the plan and the answers.

    Args:
        trajectories: the table `trajectories`.
        accuracy: the table `accuracy`.
        tests: the table `paired_tests`.
        consistency: the table `consistency`.
        plan: the analysis plan; None where none was written before the run.
        deviations: how the analysis differs from it, a phrase each.
        registrations: every plan that was written in the folder, this one last.
        formats: the table `format_noise`; None where there is none.
        graded: answers are graded right or wrong.
    """
    looks = None if plan is None else plan.registered
    tests = tests[tests["measure"].isin(MEASURES)] if graded else primary_rows(tests)
    if not graded:
        prefix = "" if tests.empty else family_prefix(tests["measure"].iloc[0])
        tests = tests.assign(family=tests["family"].str.removeprefix(prefix))
    if plan is None:
        planned = [Limit(LimitKind.NO_PLAN)]
    else:
        kind = LimitKind.PLAN_DEVIATES if deviations else LimitKind.PLAN_FOLLOWED
        followed = Limit(kind, numbers={"sha256": plan.sha256[:12], "deviations": list(deviations)})
        planned = [followed, *_history(registrations), *_power(plan), *_token_match(plan)]
    return [
        *planned,
        *(own_noise(tests) if graded else ()),
        *_looks(looks, trajectories["sample_id"].nunique()),
        *_texts(tests),
        *_references(tests, accuracy),
        *_groups(trajectories, tests),
        *_repeated(trajectories),
        *(_headroom(accuracy) if graded else ()),
        *_truncation(trajectories, accuracy),
        *thought_limits(trajectories),
        *_extraction(accuracy),
        *(_lenient(tests) if graded else ()),
        *_failures(accuracy),
        *_absent(trajectories),
        *_noise(consistency),
        *_asked(trajectories),
        *([] if formats is None else _format_noise(formats)),
    ]


def _power(plan: Preregistration) -> list[Limit]:
    if not plan.power:
        return []
    first = plan.power[0]
    rows = [row for row in (plan.power if first.texts > 1 else plan.power[:1]) if row.detectable is not None]
    limits = [Limit(LimitKind.POWER, first.detectable, {"rows": rows})] if rows else []
    if not any(row.reachable for row in plan.power):
        limits.append(Limit(LimitKind.OUT_OF_REACH, numbers={"questions": first.questions, "power": first.power}))
    limited = [row for row in plan.power if row.needs_more_texts and row.texts >= TONE_TEXTS]
    if limited:
        limits.append(Limit(LimitKind.FEW_TEXTS, limited[0].limit, {"row": limited[0]}))
    return limits


def _history(registrations: Sequence[Registration]) -> list[Limit]:
    """Earlier plans, and plans that were written when there were answers."""
    answered = sum(one.answers for one in registrations)
    if len(registrations) < 2 and not answered:
        return []
    numbers = {"number": len(registrations), "answered": answered}
    return [Limit(LimitKind.PLAN_HISTORY, float(len(registrations) - 1), numbers)]


def own_noise(tests: pd.DataFrame) -> list[Limit]:
    """Return the effect that a primary comparison can show at this noise, and the questions that the margin takes."""
    known = tests[tests["family"].eq("primary") & tests["tested"].fillna(False) & tests["low"].notna()]
    if known.empty:
        return []
    error = float((known["high"] - known["low"]).median()) / (2 * stats.norm.ppf((1 + CONFIDENCE) / 2))
    level = LEVEL * float(known["weight"].iloc[0]) / len(known)
    detectable = error * float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER))
    numbers = {"error": error, "detectable": detectable, "questions": int(known["n"].median()), "power": POWER}
    return [Limit(LimitKind.OWN_NOISE, round(detectable, 6), numbers)]


def _looks(looks: Looks | None, questions: int) -> list[Limit]:
    if looks is None or (len(looks) == 1 and questions in looks):
        return []
    numbers: dict[str, Any] = {"questions": questions, "looks": sorted(looks)}
    if questions not in looks:
        return [Limit(LimitKind.NO_LOOK, float(questions), numbers)]
    return [Limit(LimitKind.LOOK, float(questions), numbers | {"weight": looks[questions]})]


def _texts(tests: pd.DataFrame) -> list[Limit]:
    """Return how far the fewest texts of a tested comparison speak for others, and which variants have too few."""
    compared = tests[tests["family"].ne("secondary")]
    # The counts of a mean of several variants are those of its variants, which have comparisons of their own.
    sides = compared[compared["family"].eq("primary")] if compared["family"].eq("primary").any() else compared
    counts = {
        str(name): int(count)
        for side, texts in (("variant", "texts"), ("reference", "reference_texts"))
        for name, count in zip(sides[side], sides[texts], strict=True)
        if count > 0
    }
    few = [name for name, count in counts.items() if count < TONE_TEXTS]
    general = bool(compared["scope"].eq(Scope.TONE).any())
    limits = []
    if few:
        texts = min(counts.values())
        numbers: dict[str, Any] = {"texts": texts, "needed": TONE_TEXTS, "share": unseen_share(texts)}
        numbers["names"] = few if general else []
        limits.append(Limit(LimitKind.TEXTS_USED, round(unseen_share(texts), 6), numbers))
    enough = [count for count in counts.values() if count >= TONE_TEXTS]
    if enough and (general or not few):
        numbers = {"texts": min(enough), "share": unseen_share(min(enough)), "others": bool(few)}
        limits.append(Limit(LimitKind.TEXTS_UNSEEN, round(unseen_share(min(enough)), 6), numbers))
    return limits


def _absent(trajectories: pd.DataFrame) -> list[Limit]:
    """Trajectories that the folder lacks, though other variants or draws have that question."""
    planned = Questions(trajectories).planned
    count = planned - len(trajectories)
    return [Limit(LimitKind.ABSENT, float(count), {"count": count, "planned": planned})] if count > 0 else []


def _token_match(plan: Preregistration) -> list[Limit]:
    rows = [row for row in plan.token_match if not row.matched]
    numbers = {"rows": rows, "reference": plan.primary_reference, "tolerance": plan.token_tolerance}
    return [Limit(LimitKind.TOKENS_UNMATCHED, numbers=numbers)] if rows else []


def _references(tests: pd.DataFrame, accuracy: pd.DataFrame) -> list[Limit]:
    primary = tests[tests["family"] != "secondary"]
    if primary.empty and len(accuracy) == 1:
        return [Limit(LimitKind.ONE_VARIANT, numbers={"variant": accuracy["variant"].iloc[0]})]
    if primary.empty:
        return [Limit(LimitKind.NO_REFERENCE)]
    with_control = primary["family"].eq("primary") & primary["reference"].eq(CONTROL)
    if not with_control.any():
        return []
    return [Limit(LimitKind.NO_TEXT if accuracy["variant"].eq(FILLER).any() else LimitKind.NO_FILLER)]


def _groups(trajectories: pd.DataFrame, tests: pd.DataFrame) -> list[Limit]:
    if "group" not in trajectories:
        return []
    every = trajectories.drop_duplicates("sample_id")["group"]
    groups = every.dropna()
    if not groups.duplicated().any():
        return []
    count = int(groups.nunique())
    enough = count + int(every.isna().sum()) >= OTHER_GROUPS and tests["groups"].notna().any()
    kind = LimitKind.GROUPS if enough else LimitKind.FEW_GROUPS
    return [Limit(kind, float(count), {"count": count})]


def _repeated(trajectories: pd.DataFrame) -> list[Limit]:
    """Questions that come under several ids."""
    if "question" not in trajectories:
        return []
    asked = trajectories[["sample_id", "question"]].dropna().drop_duplicates("sample_id")["question"]
    counts = asked[asked.ne("")].value_counts()
    repeated = counts[counts > 1]
    numbers = {"count": len(repeated), "ids": int(repeated.sum())}
    return [Limit(LimitKind.REPEATED, float(len(repeated)), numbers)] if len(repeated) else []


def _headroom(accuracy: pd.DataFrame) -> list[Limit]:
    right, n = int(accuracy["correct"].sum()), int(accuracy["n"].sum())
    if n == 0:
        return [Limit(LimitKind.NOTHING_GRADED)]
    share = right / n
    if right == 0:
        kind = LimitKind.ALL_WRONG
    elif right == n:
        kind = LimitKind.ALL_CORRECT
    elif HEADROOM <= share <= 1 - HEADROOM:
        return []
    else:
        kind = LimitKind.NEAR_FLOOR if share < 0.5 else LimitKind.NEAR_CEILING
    return [Limit(kind, round(share, 6), {"share": share})]


def _truncation(trajectories: pd.DataFrame, accuracy: pd.DataFrame) -> list[Limit]:
    known = trajectories["truncated"].dropna()
    share = float(known.astype(float).mean()) if len(known) else 0.0
    if share <= NOTEWORTHY and not (accuracy["truncated"] > NOTEWORTHY).any():
        return []
    numbers = {"share": share, "graded": bool(accuracy["n"].sum())} | _most(accuracy, "truncated")
    return [Limit(LimitKind.TRUNCATED, round(share, 6), numbers)]


def thought_limits(trajectories: pd.DataFrame) -> list[Limit]:
    """Return the limit of answers that were cut off within a thought.

    Args:
        trajectories: the table `trajectories`; one of an earlier version does not count them.
    """
    if "thought_cut_off" not in trajectories:
        return []
    cut = trajectories[trajectories["thought_cut_off"].fillna(False).astype(bool)]
    counts = {str(name): int(count) for name, count in cut["variant"].value_counts(sort=False).items()}
    numbers = {"count": len(cut), "total": int(trajectories["failure"].isna().sum()), "counts": counts}
    return [Limit(LimitKind.THOUGHT_CUT_OFF, float(len(cut)), numbers)] if len(cut) else []


def _extraction(accuracy: pd.DataFrame) -> list[Limit]:
    if not (accuracy["last_number"] > NOTEWORTHY).any():
        return []
    most = _most(accuracy, "last_number")
    return [Limit(LimitKind.UNMARKED, round(most["most"], 6), most)]


def _most(accuracy: pd.DataFrame, column: str) -> dict[str, Any]:
    """The variant with the largest value, and that value."""
    rows = accuracy.dropna(subset=[column]).to_dict(orient="records")
    largest: dict[Hashable, Any] = max(rows, key=lambda row: float(row[column]))
    return {"variant": largest["variant"], "most": float(largest[column])}


def _lenient(tests: pd.DataFrame) -> list[Limit]:
    """Return a limit if the grade matters: a lenient difference lies outside the interval of the strict one."""
    rows = tests.to_dict(orient="records")
    lenient = {(row["variant"], row["reference"]): row["difference"] for row in rows if row["measure"] == "lenient"}
    apart = [
        {
            "variant": row["variant"],
            "reference": row["reference"],
            "lenient": lenient[row["variant"], row["reference"]],  # present wherever a strict one is
            "strict": row["difference"],
        }
        for row in rows
        if row["family"] == "primary" and not pd.isna(row["low"])
        if not row["low"] <= lenient[row["variant"], row["reference"]] <= row["high"]
    ]
    return [Limit(LimitKind.GRADED_OTHERWISE, numbers={"rows": apart})] if apart else []


def _failures(accuracy: pd.DataFrame) -> list[Limit]:
    failed = accuracy[accuracy["failures"] > 0]
    count = int(failed["failures"].sum())
    numbers = {"count": count, "rows": failed.to_dict(orient="records")}
    return [Limit(LimitKind.REQUESTS_FAILED, float(count), numbers)] if count else []


def _noise(consistency: pd.DataFrame) -> list[Limit]:
    agreement = consistency[consistency["variant"] == consistency["other"]]["own_agreement"].dropna()
    if agreement.empty:
        return []
    share = 1 - float(agreement.mean())
    return [Limit(LimitKind.SAMPLING_NOISE, round(share, 6), {"share": share})]


def _asked(trajectories: pd.DataFrame) -> list[Limit]:
    if "asks" not in trajectories:
        return []
    most = trajectories.dropna(subset=["asks"]).groupby("variant", sort=False)["asks"].max()
    asks = {str(name): int(count) for name, count in most.items() if count > 1}
    return [Limit(LimitKind.ASKED, numbers={"asks": asks})] if asks else []


def _format_noise(formats: pd.DataFrame) -> list[Limit]:
    # Of a variant that no server answered, or whose answers have no grade, no effect is known.
    known = formats[formats["difference"].notna()]
    rows, tones = (known[known["kind"] == kind].to_dict(orient="records") for kind in ("format", "tone"))
    if not rows:
        return []
    effects = [float(row["difference"]) for row in rows]
    # Control is one of the formats that are compared, with an effect of 0.
    spread = max(0.0, *effects) - min(0.0, *effects)
    numbers = {
        "formats": rows,
        "tones": tones,
        "low": min(effects),
        "high": max(effects),
        "spread": spread,
        "reached": max(float(row["least"]) for row in rows),
        "within": [row["variant"] for row in tones if not pd.isna(row["within"]) and row["within"]],
    }
    return [Limit(LimitKind.FORMAT_NOISE, round(spread, 6), numbers)]
