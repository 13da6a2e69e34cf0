"""What a run says at its end, and what it does to the dates of its files at its beginning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from emoprobe.config.files import Study
from emoprobe.report.closing import study_text, summary_text
from emoprobe.results.dates import date_to_now, files_below
from emoprobe.results.layout import Layout
from emoprobe.workflow.failures import failure_text


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
    """What failed in a run, by reason: Snakemake itself tells only which jobs did.

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
    return "\n".join(text for text in texts if text)


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
