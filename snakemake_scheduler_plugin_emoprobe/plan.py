"""A plan in a few lines: how many jobs of each rule, and why."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

MAX_NAMES = 4
REASONS = {
    "_missing_output": "missing output",
    "_incomplete_output": "incomplete output",
    "_updated_input": "newer input",
    "input_changed": "other set of inputs",
    "code_changed": "code changed",
    "software_stack_changed": "software environment changed",
    "forced": "forced",
}
AGAIN = "input is made again"


def summary(dag: Any) -> str:
    """One line for each rule and group of reasons, such as `96 generate: made_from changed (variant joy)`."""
    groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for job in dag.needrun_jobs():
        if not job.is_norun:
            groups[job.rule.name, _why(job, dag.reason(job))].append(job)
    if not groups:
        return ""
    order = {rule.name: place for place, rule in enumerate(dag.workflow.rules)}
    lines = [
        f"  {len(jobs)} {rule}: {why}{_variants(jobs)}"
        for (rule, why), jobs in sorted(groups.items(), key=lambda group: (order[group[0][0]], group[0][1]))
    ]
    return "\n".join(["Planned, and why (each file with `--quiet host`):", *lines])


def _why(job: Any, reason: Any) -> str:
    reasons = [words for attribute, words in REASONS.items() if getattr(reason, attribute)]
    if reason.params_changed:
        reasons.append(f"{', '.join(_changed(job, reason.params_changed))} changed")
    if not reasons and reason._updated_input_run:
        reasons.append(AGAIN)
    return "; ".join(reasons) or "needed"


def _changed(job: Any, change: Any) -> list[str]:
    """The names of the parameters that differ, or of their digests: a value may be `model 12ab data 34cd`."""
    names: list[str] = []
    for name, value in job.params.items():
        if repr(value) in change.only_new:
            parts = [part for old in change.only_old for part in _parts(old, value)]
            names += [part for part in parts or [name] if part not in names]
    return names or ["params"]


def _parts(old: str, new: Any) -> list[str]:
    """The names of the digests in which two values differ; none where they are not the same names with digests."""
    before, after = old.strip("'\"").split(), str(new).split()
    if len(before) != len(after) or len(after) < 2 or before[::2] != after[::2]:
        return []
    return [name for name, was, now in zip(after[::2], before[1::2], after[1::2], strict=True) if was != now]


def _variants(jobs: list[Any]) -> str:
    names = sorted({job.wildcards_dict["variant"] for job in jobs if "variant" in job.wildcards_dict})
    if not names:
        return ""
    if len(names) > MAX_NAMES:
        return f" ({len(names)} variants)"
    return f" (variant{'' if len(names) == 1 else 's'} {', '.join(names)})"
