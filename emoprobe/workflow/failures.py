"""What went wrong in a run, by reason, out of the logs of its jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from emoprobe.results.activation_folder import METADATA
from emoprobe.results.layout import JOB_KINDS, SCORES, JobKind, Layout
from emoprobe.results.trajectory import MESSAGES

MAX_LINES = 40
MAX_NAMES = 5
# How the logs of scripts end that were interrupted: see `scripts`, and Python itself where it had not got so far.
INTERRUPTED = ("interrupted by ", "KeyboardInterrupt")


def failed_jobs(layout: Layout) -> Iterator[tuple[JobKind, str, Path]]:
    """Yield the kind, the name and the log of each job of which there are many, whose last run failed.

    Such a job writes its log only where it has something to say; a warning beside a file is no failure.
    """
    for kind in JOB_KINDS:
        folder = layout.root / "logs" / kind
        for path in sorted(folder.rglob("*.log")):
            name = path.relative_to(folder).with_suffix("")
            with suppress(FileNotFoundError):  # the next job of that name has removed it
                if path.stat().st_size and not _target(layout, kind, name).exists():
                    yield kind, str(name), path


def _target(layout: Layout, kind: JobKind, name: Path) -> Path:
    """The file that a job makes last, by its kind and the name of its log."""
    match kind:
        case "sample":
            return layout.sample(name.name)
        case "generate":
            return layout.pair(str(name.parent), name.name) / MESSAGES
        case "capture":
            return layout.activations(str(name.parent), name.name) / METADATA
        case "tokens":
            return layout.tokens(str(name.parent), name.name) / METADATA
        case "direction":
            return layout.direction(name.name)
        case "steer" | "score":
            folder = layout.steered(str(name.parent.parent), name.parent.name, name.name)
            return folder / (MESSAGES if kind == "steer" else SCORES)


def pair_failures(layout: Layout, since: float) -> dict[str, list[str]]:
    """Reason → the samples and pairs that failed for it, from the logs that were written since a time."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for kind, name, path in failed_jobs(layout):
        if path.stat().st_mtime >= since:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            reasons[text.removeprefix(f"{name}: ")].append(f"{kind} {name}")
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
