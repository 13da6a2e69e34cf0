"""The table of each measure of behaviour: accuracy, shape of the answers, agreement, and the workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations, islice
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.estimates import Estimates, Floats, difference, mean, whichever
from emoprobe.analysis.outcomes import Outcome, column_and_category
from emoprobe.analysis.paired_tests import Scope
from emoprobe.analysis.questions import Questions, Units
from emoprobe.analysis.statistics import holm, kappa
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import is_format
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame

# Column of the trajectories → how it is called. Each is tested, so none says again what another says: efficiency is a
# function of the completion tokens, and characters are the same length in another unit.
CHARACTERISTICS_OF = {
    "completion_tokens": "completion tokens",
    "steps": "reasoning steps",
    "truncated": "truncation rate",
    "compliant": "format compliance",
    "polarity": "polarity of tone (exploratory)",
    "subjectivity": "subjectivity of tone (exploratory)",
}
SHARES = frozenset({"truncated", "compliant"})
EXTRACTIONS = ("marker", "boxed", "letter", "last_number", "none")
NAN = float("nan")


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each variant, strict and lenient, with what its answers were read off and how many there are."""
    questions = Questions(table)
    rows = []
    for name in questions.names:
        answers = table[table["variant"] == name]
        graded, failures = answers["correct"].dropna(), int(answers["failure"].notna().sum())
        right, known = int(graded.sum()), len(graded)
        estimate, kind = (_mean_of(questions, measure, name, True) for measure in ("correct", "lenient"))
        rows.append(
            {
                "variant": name,
                "valence": answers["valence"].iloc[0],
                "texts": questions.count(name),
                "n": known,
                "correct": right,
                "accuracy": right / known if known else NAN,
                "low": float(estimate.low),
                "high": float(estimate.high),
                "lenient": float(answers["lenient"].astype("Float64").mean()) if known else NAN,
                "lenient_low": float(kind.low),
                "lenient_high": float(kind.high),
                "compliance": _share(answers["compliant"]),
                "truncated": _share(answers["truncated"]),
                **{
                    way: _share((answers["extraction"] == way).where(answers["extraction"].notna()))
                    for way in EXTRACTIONS
                },
                "failures": failures,
                "if_failures_wrong": right / (known + failures) if known + failures else NAN,
                "if_failures_right": (right + failures) / (known + failures) if known + failures else NAN,
            }
        )
    return frame(TABLES["accuracy"], rows)


def outcome_means(table: pd.DataFrame, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Mean of each outcome in each variant: the share of true values or of a category, or the mean number."""
    questions = Questions(table)
    valences = dict(zip(table["variant"].astype(str), table["valence"], strict=True))
    rows = []
    for outcome in outcomes:
        for measure in outcome.measures:
            for name in questions.names:
                share = outcome.value != "number"
                estimate = _mean_of(questions, measure, name, share)
                answers = table[table["variant"] == name]
                if outcome.given is not None:  # of a wrong answer nothing can survive
                    answers = answers[answers[outcome.given].fillna(True)]
                rows.append(
                    {
                        "outcome": outcome.label,
                        "measure": measure,
                        "value": outcome.value,
                        "category": column_and_category(measure)[1],
                        "variant": name,
                        "valence": valences[name],
                        "n": int(answers[outcome.column].notna().sum()),
                        "missing": int(answers[outcome.column].isna().sum()),
                        "mean": float(estimate.value),
                        "low": float(estimate.low),
                        "high": float(estimate.high),
                    }
                )
    return frame(TABLES["outcomes"], rows)


def characteristics(
    table: pd.DataFrame, references: Sequence[str] | None = None, weight: float | None = 1.0
) -> pd.DataFrame:
    """The shape and tone of each variant's answers, compared with the primary reference on the same questions.

    The primary reference is compared with the reference before it. All tests of the table are one secondary family.
    Where trajectories are missing, a share is tested as accuracies are, whatever those would have been; a measure
    without limits is not tested.

    Args:
        table: the trajectories.
        references: `analysis.references`.
        weight: share of the level that belongs to this number of questions; None: nothing is tested.
    """
    questions = Questions(table)
    known = references_of(questions.names, references)
    rows = []
    for measure in CHARACTERISTICS_OF:
        values = questions.values(measure)
        share = measure in SHARES
        for place, name in enumerate(questions.names):
            estimate = _mean_of(questions, measure, name, share)
            row: dict[str, Any] = {
                "variant": name,
                "measure": measure,
                "n": int((~np.isnan(values[place])).sum()),
                "mean": float(estimate.value),
                "low": float(estimate.low),
                "high": float(estimate.high),
            }
            reference = _reference(name, known)
            if reference is not None:
                row |= {"reference": reference} | _compared(questions, measure, name, reference)
            rows.append(row)
    order = {name: place for place, name in enumerate(questions.names)}
    rows.sort(key=lambda row: order[row["variant"]])
    if weight is None:
        rows = [{key: value for key, value in row.items() if key != "p"} for row in rows]
    corrected = holm([min(1.0, row.get("p", NAN) / (weight or 1.0)) for row in rows])
    return frame(
        TABLES["characteristics"], [row | {"p_holm": p} for row, p in zip(rows, corrected.tolist(), strict=True)]
    )


def _reference(name: str, references: list[str]) -> str | None:
    """Return the reference of a variant: the primary one, or for that the one before it; a format has none."""
    if is_format(name):
        return None
    if name not in references:
        return references[-1] if references else None
    return references[-2] if len(references) > 1 and name == references[-1] else None


def _mean_of(questions: Questions, measure: str, name: str, share: bool) -> Estimates:
    """The mean of one variant's measure, over its texts where they stand for others, else over questions."""
    units = questions.units(name) or Units()
    values = questions.values(measure, asks=units.asks)[questions.row(name)]
    groups = units.repeated(questions.groups)
    return mean(values, units.sides[0], share, groups, units.sides[1], questions.other_groups)


def _compared(questions: Questions, measure: str, name: str, reference: str) -> dict[str, Any]:
    """Compare a variant's measure with a reference's."""
    places, share = [questions.row(name), questions.row(reference)], measure in SHARES
    known = questions.units(name, reference)
    units = known or Units()
    missing = bool(questions.missing(measure)[places].any())
    fillings: list[tuple[float | None, float | None]] = [(None, None)]
    if missing and share:
        fillings += [(1.0, 0.0), (0.0, 1.0)]

    def pair(filling: tuple[float | None, float | None], asks: int) -> Floats:
        first, second = filling
        ours, theirs = questions.values(measure, first, asks), questions.values(measure, second, asks)
        apart: Floats = ours[places[0]] - theirs[places[1]]
        return apart

    groups, skewed, other = units.repeated(questions.groups), bool(units.divisions), questions.other_groups
    estimate = whichever(
        [
            difference(pair(each, units.asks), *units.sides, NAN, share, groups, skewed=skewed, other_groups=other)
            for each in fillings
        ]
    )
    differences = pair((None, None), 1)
    differences = differences[~np.isnan(differences)]
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else NAN
    return {
        "difference": float(estimate.value),
        "difference_low": float(estimate.low),
        "difference_high": float(estimate.high),
        "effect_size": float(estimate.value) / spread if spread > 0 else NAN,
        "p": NAN if missing and not share else float(estimate.p),
        "scope": Scope.TEXTS if known is None else Scope.TONE,
    }


def _share(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else NAN


MAX_PAIRS = 15  # pairs of draws that an agreement is the mean over, in both orders


def consistency(table: pd.DataFrame) -> pd.DataFrame:
    """Every ordered pair of variants, itself included.

    With several draws all is a mean over pairs of *different* draws, and the diagonal is the noise floor: how far a
    variant agrees with itself. Draws of one number share their seed between variants, so they are not paired. All asks
    of a variant count, and with one draw each the diagonal is how far it agrees with itself where the text is another.
    """
    questions = Questions(table)
    solved = questions.by_draw("correct")
    draws = questions.draws
    first = solved[:, :, 0]
    complete = ~np.isnan(first).any(axis=0)
    counts = first[:, complete].sum(axis=0)
    rows: list[dict[str, Any]] = []
    for place, variant in enumerate(questions.names):
        for other_place, other in enumerate(questions.names):
            pairs = _draw_pairs(draws, *map(int, questions.asks[[place, other_place]]), same=place == other_place)
            agreements = [_agreement(solved[place, :, one], solved[other_place, :, two]) for one, two in pairs]
            n, agreement, chance, gained, lost = (_mean(values) for values in zip(*agreements, strict=True))
            rows.append(
                {
                    "variant": variant,
                    "other": other,
                    "n": round(n),
                    "agreement": agreement,
                    "kappa": chance,
                    "gained": gained,
                    "lost": lost,
                    "alone": int(((counts == 1) & (first[place, complete] == 1)).sum()) if variant == other else None,
                    "all_solve": int((counts == len(questions.names)).sum()),
                    "none_solves": int((counts == 0).sum()),
                }
            )
    by_pair = {(row["variant"], row["other"]): row for row in rows}
    for row in rows:
        for measure in ("agreement", "kappa"):
            diagonal = [float(by_pair[row[side], row[side]][measure]) for side in ("variant", "other")]
            row[f"own_{measure}"] = float(np.mean(diagonal)) if draws > 1 else float("nan")
    return frame(TABLES["consistency"], rows)


def _draw_pairs(draws: int, asks: int, other_asks: int, *, same: bool) -> list[tuple[int, int]]:
    """Pairs of draws, from 0, of two variants that agreement is the mean over; each is there in both orders.

    Args:
        draws: of one ask.
        asks: of the variant.
        other_asks: of the other one.
        same: they are one variant, whose draws are compared within an ask, unless there is one.
    """
    pairs = (
        (one, two)
        for one, two in combinations(range(draws * max(asks, other_asks)), 2)
        if (draws == 1 or (one // draws == two // draws if same else one % draws != two % draws))
    )
    chosen = list(islice(pairs, MAX_PAIRS))
    both = [*chosen, *((two, one) for one, two in chosen)]
    if draws == 1 and not same:
        both = [(0, 0), *both]
    return [(one, two) for one, two in both if one < draws * asks and two < draws * other_asks] or [(0, 0)]


def _agreement(first: Floats, second: Floats) -> tuple[float, float, float, float, float]:
    """Questions that both have, share judged alike, κ, and how many the first alone and the second alone solves."""
    both = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[both], second[both]
    n = len(first)
    return (
        float(n),
        float(np.mean(first == second)) if n else float("nan"),
        kappa(first, second),
        float(((first == 1) & (second == 0)).sum()),
        float(((first == 0) & (second == 1)).sum()),
    )


def _mean(values: tuple[float, ...]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def workers(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each worker's performance from the attempts that the trajectories record."""
    failed = [
        {"worker": attempt.get("worker"), "started": attempt.get("started"), "error": attempt.get("error")}
        for attempts in table["failed_attempts"].dropna()
        for attempt in json.loads(attempts)
    ]
    failures = pd.DataFrame(failed, columns=["worker", "started", "error"])
    rows = []
    for worker in sorted({*table["worker"].dropna(), *failures["worker"].dropna()}):
        answered = table[table["worker"] == worker]
        failed_here = failures[failures["worker"] == worker].sort_values("started")
        seconds = answered["seconds"].dropna().astype(float).to_numpy()
        tokens = int(answered["completion_tokens"].fillna(0).sum())
        span = _span(answered)
        p50, p90, p99 = np.quantile(seconds, [0.5, 0.9, 0.99]) if len(seconds) else [float("nan")] * 3
        rows.append(
            {
                "worker": worker,
                "hardware": ", then ".join(answered.sort_values("started")["hardware"].dropna().unique()) or None,
                "requests": len(answered) + len(failed_here),
                "answered": len(answered),
                "failures": len(failed_here),
                "retried_from": int((answered["attempts"].fillna(1) > 1).sum()),
                "completion_tokens": tokens,
                "tokens_per_second": tokens / span if span > 0 else float("nan"),
                "latency_p50": p50,
                "latency_p90": p90,
                "latency_p99": p99,
                "last_error": failed_here["error"].iloc[-1] if len(failed_here) else None,
            }
        )
    return frame(TABLES["workers"], rows)


def _seconds_of(date: str) -> float:
    """Seconds since the epoch of a date in ISO 8601; NaN for anything else, which another program may have written."""
    try:
        return datetime.fromisoformat(date).timestamp()
    except ValueError:
        return float("nan")


def _span(answered: pd.DataFrame) -> float:
    """Seconds in which a worker had at least one answered request in flight."""
    known = answered.dropna(subset=["started", "seconds"])
    start = np.array([_seconds_of(text) for text in known["started"]], dtype=float)
    dated = ~np.isnan(start)
    if not dated.any():
        return 0.0
    start, seconds = start[dated], known["seconds"].astype(float).to_numpy()[dated]
    order = np.argsort(start)
    begin, end = start[order], (start + seconds)[order]
    covered = np.maximum.accumulate(end)
    fresh = np.maximum(begin[1:], covered[:-1])
    return float(end[0] - begin[0] + np.clip(covered[1:] - fresh, 0, None).sum())
