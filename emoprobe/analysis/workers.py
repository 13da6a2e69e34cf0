"""How the workers fared: what they answered, how fast, and what failed."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pandas as pd

from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame


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
                "hardware": ", then ".join(answered.sort_values("started")["hardware"].dropna().unique()) or None,
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
