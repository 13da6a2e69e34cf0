"""What went wrong in a run, by reason, out of the logs of its jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from emoprobe.results.layout import JOB_KINDS, Layout

MAX_LINES = 40
MAX_NAMES = 5
# How the logs of scripts end that were interrupted: see `scripts`, and Python itself where it had not got so far.
INTERRUPTED = ("interrupted by ", "KeyboardInterrupt")


def pair_failures(layout: Layout, since: float) -> dict[str, list[str]]:
    """Reason → the samples and pairs that failed for it, from the logs that were written since a time.

    The log of a trajectory or capture stays empty unless its job fails.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    for kind in JOB_KINDS:
        folder = layout.root / "logs" / kind
        for path in sorted(folder.rglob("*.log")):
            status = path.stat()
            if not status.st_size or status.st_mtime < since:
                continue
            pair = str(path.relative_to(folder).with_suffix(""))
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            reasons[text.removeprefix(f"{pair}: ")].append(f"{kind} {pair}")
    return reasons


def failure_text(layout: Layout, other_logs: Iterable[Path], since: float) -> str:
    """Failures by reason, each with how many and which; an empty string where there are none.

    Args:
        layout: the experiment.
        other_logs: logs of jobs that failed and are not about one pair.
        since: when the run began, in seconds since the epoch.
    """
    blocks, interrupted = [], []
    for path in other_logs:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().split("\n")
        if _was_interrupted(lines):
            interrupted.append(path.stem)
        elif any(lines):
            lines = lines[-MAX_LINES:]
            blocks.append("\n".join([f"{path.stem} failed ({path}):", *(f"    {line}" for line in lines)]))
    for reason, pairs in sorted(pair_failures(layout, since).items(), key=lambda item: -len(item[1])):
        names = ", ".join(pairs[:MAX_NAMES]) + (", …" if len(pairs) > MAX_NAMES else "")
        lines = reason.splitlines()[:MAX_LINES]
        blocks.append("\n".join([f"{len(pairs)} failed ({names}):", *(f"    {line}" for line in lines)]))
    if blocks:
        blocks = ["What failed, and why:", *blocks, "What is done stays; change what is named above, then run again."]
    if interrupted:
        blocks.append(f"Interrupted: {', '.join(interrupted)}. What is done stays; run again to go on.")
    return "\n".join(["", *blocks]) if blocks else ""


def _was_interrupted(lines: list[str]) -> bool:
    """Whether a log is that of a script that was ended from outside; of a traceback there may be half."""
    traceback = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last):")]
    unfinished = bool(traceback) and all(line.startswith(" ") or not line for line in lines[traceback[-1] + 1 :])
    return lines[-1].startswith(INTERRUPTED) or unfinished
