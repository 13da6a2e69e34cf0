"""What the variants did: accuracy, and how the workers fared."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from scripts.lib.config import CONTROL

CONFIDENCE = 0.95

ACCURACY = {
    "variant": "Variant.",
    "valence": "Its valence in the config.",
    "n": "Graded trajectories.",
    "correct": "Correct ones.",
    "accuracy": "Share of correct ones.",
    "low": "Lower end of the 95 % Wilson interval.",
    "high": "Upper end of the 95 % Wilson interval.",
    "difference": "Accuracy minus that of control, over the samples that both have.",
    "compliance": "Share of answers in the form that the prompt asks for.",
}
WORKERS = {
    "worker": "Worker.",
    "requests": "Attempts sent there.",
    "answered": "Attempts that it answered well.",
    "failures": "Attempts that failed.",
    "retried_from": "Pairs that it answered after another attempt had failed.",
    "completion_tokens": "Tokens that it generated.",
    "tokens_per_second": "Generated tokens per second between its first start and its last answer.",
    "latency_p50": "Median seconds of an answered attempt.",
    "latency_p90": "90th percentile of the same.",
    "latency_p99": "99th percentile of the same.",
    "last_error": "Last failure's reason; null: none.",
}


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927); the whole range where n is 0."""
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(correct, n, alpha=1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


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
    return pd.DataFrame(rows, columns=list(ACCURACY))


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
    return pd.DataFrame(rows, columns=list(WORKERS))


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
