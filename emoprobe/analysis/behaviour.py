"""What the variants did: accuracy, paired tests, the shape of the answers, and how the workers fared."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pandas as pd

from emoprobe.analysis.statistics import detectable_difference, exact_mcnemar, holm, mean_interval, wilcoxon, wilson
from emoprobe.config.names import CONTROL
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame

# Column of the trajectories → how it is called.
CHARACTERISTICS_OF = {
    "completion_tokens": "completion tokens",
    "characters": "characters",
    "steps": "reasoning steps",
    "truncated": "truncation rate",
    "compliant": "format compliance",
    "efficiency": "efficiency",
    "polarity": "polarity of tone",
    "subjectivity": "subjectivity of tone",
}


def paired(table: pd.DataFrame, variant: str, column: str) -> pd.DataFrame:
    """A column of a variant and of control on the samples that have both: columns `variant` and `control`."""
    known = table[table[column].notna()]

    def values(name: str) -> pd.Series:
        rows = known[known["variant"] == name]
        return pd.Series(rows[column].astype(float).to_numpy(), index=rows["sample_id"].to_numpy(), dtype=float)

    return pd.DataFrame({"variant": values(variant), "control": values(CONTROL)}).dropna().sort_index()


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each variant, in the order of the table, with its interval and difference to control."""
    rows = []
    for variant, group in table.groupby("variant", sort=False):
        graded = group["correct"].dropna()
        low, high = wilson(int(graded.sum()), len(graded))
        pair = paired(table, str(variant), "correct")
        rows.append(
            {
                "variant": variant,
                "valence": group["valence"].iloc[0],
                "n": len(graded),
                "correct": int(graded.sum()),
                "accuracy": float(graded.mean()) if len(graded) else float("nan"),
                "low": low,
                "high": high,
                "difference": float((pair["variant"] - pair["control"]).mean()) if len(pair) else float("nan"),
                "compliance": float(group["compliant"].mean()),
            }
        )
    return frame(TABLES["accuracy"], rows)


def paired_tests(table: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Each variant against control on the same samples, corrected over all variants."""
    names = [name for name in table["variant"].unique() if name != CONTROL]
    rows = []
    for name in names:
        pair = paired(table, name, "correct")
        ours, theirs = pair["variant"].to_numpy() > 0, pair["control"].to_numpy() > 0
        gained, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
        estimate = mean_interval(ours.astype(float) - theirs.astype(float), resamples, seed)
        n = len(pair)
        rows.append(
            {
                "variant": name,
                "n": n,
                "both": int((ours & theirs).sum()),
                "gained": gained,
                "lost": lost,
                "neither": int((~ours & ~theirs).sum()),
                "difference": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "odds_ratio": gained / lost if lost else float("nan"),
                "p": exact_mcnemar(gained, lost) if n else float("nan"),
                "detectable": detectable_difference(n, (gained + lost) / n if n else 0.0, len(names)),
            }
        )
    corrected = holm([row["p"] for row in rows])
    return frame(TABLES["paired_tests"], [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)])


def characteristics(table: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """The shape and tone of each variant's answers, compared with control on the same samples."""
    rows = []
    for name in table["variant"].unique():
        own = table[table["variant"] == name]
        for measure in CHARACTERISTICS_OF:
            values = own[measure].dropna().astype(float).to_numpy()
            mean = mean_interval(values, resamples, seed)
            pair = paired(table, name, measure)
            differences = (pair["variant"] - pair["control"]).to_numpy()
            estimate = mean_interval(differences, resamples, seed)
            spread = float(differences.std(ddof=1)) if len(differences) > 1 else float("nan")
            rows.append(
                {
                    "variant": name,
                    "measure": measure,
                    "n": len(values),
                    "mean": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "difference": estimate.value,
                    "difference_low": estimate.low,
                    "difference_high": estimate.high,
                    "effect_size": estimate.value / spread if spread > 0 else 0.0 if spread == 0 else float("nan"),
                    "p": float("nan") if name == CONTROL else wilcoxon(differences),
                }
            )
    corrected = holm([row["p"] for row in rows])
    return frame(TABLES["characteristics"], [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)])


def workers(table: pd.DataFrame) -> pd.DataFrame:
    """How each worker fared, out of the attempts that the trajectories record."""
    failed = [
        {"worker": attempt.get("worker"), "started": attempt.get("started"), "error": attempt.get("error")}
        for attempts in table["failed_attempts"].dropna()
        for attempt in json.loads(attempts)
    ]
    failures = pd.DataFrame(failed, columns=["worker", "started", "error"])
    rows = []
    for worker in sorted({*table["worker"].dropna(), *failures["worker"].dropna()}):
        answered = table[table["worker"] == worker]
        own = failures[failures["worker"] == worker].sort_values("started")
        seconds = answered["seconds"].dropna().astype(float).to_numpy()
        tokens = int(answered["completion_tokens"].fillna(0).sum())
        span = _span(answered)
        p50, p90, p99 = np.quantile(seconds, [0.5, 0.9, 0.99]) if len(seconds) else [float("nan")] * 3
        rows.append(
            {
                "worker": worker,
                "requests": len(answered) + len(own),
                "answered": len(answered),
                "failures": len(own),
                "retried_from": int((answered["attempts"].fillna(1) > 1).sum()),
                "completion_tokens": tokens,
                "tokens_per_second": tokens / span if span > 0 else float("nan"),
                "latency_p50": p50,
                "latency_p90": p90,
                "latency_p99": p99,
                "last_error": own["error"].iloc[-1] if len(own) else None,
            }
        )
    return frame(TABLES["workers"], rows)


def _span(answered: pd.DataFrame) -> float:
    """Seconds in which a worker had at least one answered request in flight."""
    known = answered.dropna(subset=["started", "seconds"])
    if known.empty:
        return 0.0
    start = np.array([datetime.fromisoformat(text).timestamp() for text in known["started"]])
    order = np.argsort(start)
    begin, end = start[order], (start + known["seconds"].astype(float).to_numpy())[order]
    covered = np.maximum.accumulate(end)
    fresh = np.maximum(begin[1:], covered[:-1])
    return float(end[0] - begin[0] + np.clip(covered[1:] - fresh, 0, None).sum())
