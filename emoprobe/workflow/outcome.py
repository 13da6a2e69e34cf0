"""The end of a run: its headline numbers, or what failed, by reason. Also the dates of files at its beginning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from emoprobe.config.files import Study
from emoprobe.report.closing import study_text, summary_text
from emoprobe.results.activation_folder import METADATA
from emoprobe.results.dates import date_to_now, files_below
from emoprobe.results.layout import JOB_KINDS, OUTCOMES_FILE, SCORES, JobKind, Layout
from emoprobe.results.trajectory import MESSAGES

MAX_LINES = 40
MAX_NAMES = 5
# How the logs of scripts end that were interrupted: see `scripts`, and Python itself where it had not got so far.
INTERRUPTED = ("interrupted by ", "KeyboardInterrupt")
RESUME = "What is done stays; run again to go on."


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
        case "outcomes":
            return layout.pair(str(name.parent), name.name) / OUTCOMES_FILE
        case "judge":
            return layout.judgement(str(name.parent.parent), name.parent.name, name.name)
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
        blocks.append(f"Interrupted: {', '.join(interrupted)}. {RESUME}")
    return "\n".join(["", *blocks]) if blocks else ""


def _was_interrupted(lines: list[str]) -> bool:
    """Return whether a log is that of a script that was ended from outside; of a traceback there may be half."""
    traceback = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last):")]
    unfinished = bool(traceback) and all(line.startswith(" ") or not line for line in lines[traceback[-1] + 1 :])
    return lines[-1].startswith(INTERRUPTED) or unfinished


def date_future_files_to_now(study: Study, results: Path) -> None:
    """Date every file of the plan that seems to come from the future to now; see `emoprobe.results.dates`."""
    for name in study.configs:
        date_to_now(files_below(results / name))


def summaries(study: Study, results: Path, files: Collection[Path]) -> str:
    """The headline numbers of a study, or of an experiment, whose report belongs to the run.

    Args:
        study: the plan.
        results: the folder of the experiments.
        files: every file that is up to date since the run succeeded. A report that is none of them, after `--until` or
            with other targets, may be older than what it is about: its date is given in place of its content.
    """
    names = [study.name] if study.name is not None else list(study.configs)
    text = summary_text if study.name is None else study_text
    reports = (path for path in (Layout.of(name, results).report for name in names) if path.exists())
    return "\n".join(text(path) if path in files else _left_out(path) for path in reports)


def _left_out(report: Path) -> str:
    made = datetime.fromtimestamp(report.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    return (
        f"\n{report.parent.name}: this run did not include {report}, which was made {made} and may be out of date.\n"
        "  Run Snakemake without --until and without targets to bring it up to date."
    )


def failures(study: Study, results: Path, jobs: Mapping[str, list[str]], since: float) -> str:
    """Group the failures of a run by reason and say how to go on; Snakemake itself names only the jobs.

    Args:
        study: the plan.
        results: the folder of the experiments.
        jobs: log → outputs of every rule, with wildcards and without their constraints; those that name more than an
            experiment or a study are left out.
        since: when the run began, in seconds since the epoch.
    """
    names = [("{experiment}", name) for name in study.configs]
    if study.name is not None:
        names.append(("{study}", study.name))
    texts = (
        failure_text(Layout.of(name, results), _failed(jobs, wildcard, name, since), since) for wildcard, name in names
    )
    # A run that is interrupted while only requests are open leaves no log of a failure.
    return "\n".join(text for text in texts if text) or f"\n{RESUME}"


def _failed(jobs: Mapping[str, list[str]], wildcard: str, name: str, since: float) -> Iterator[Path]:
    """Logs of the jobs of one experiment or study that began in this run and did not make all of their outputs."""
    for template, outputs in jobs.items():
        log = Path(template.replace(wildcard, name))
        made = [Path(path.replace(wildcard, name)) for path in outputs]
        mine = wildcard in template and "{" not in str(log)
        if mine and _since(log, since) and not all(_since(path, since) for path in made):
            yield log


def _since(path: Path, moment: float) -> bool:
    return path.exists() and path.stat().st_mtime >= moment
