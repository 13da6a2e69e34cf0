"""Snakemake's logger for dry runs of many jobs: how many of each rule are planned, and why.

At the end of a dry run it prints a line for each rule and reason, such as `96 generate: variant changed (variant joy)`.
It says nothing else, so that it goes with any other logger. Chosen with `logger: emoprobe` in a profile; Snakemake
finds the plugin by the name of this package.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

MAX_NAMES = 4
# Snakemake's words for a reason → ours.
REASONS = {
    "Forced execution": "forced",
    "Missing output files": "missing output",
    "Incomplete output files": "incomplete output",
    "Updated input files": "newer input",
    "Set of input files has changed": "other set of inputs",
    "Code has changed": "code changed",
    "Software environment definition has changed": "software environment changed",
}
PARAMS = re.compile(r"Params have changed since last execution: .*?before: (?P<before>.*) now: (?P<now>.*)$")
# Told only where nothing else is: it follows from another job.
FOLLOWS = "Input files updated by another job"
VALUES = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


class LogHandler(LogHandlerBase):
    """Counts the jobs of a dry run and prints the counts when Snakemake ends."""

    def __post_init__(self) -> None:
        """No job has been announced yet."""
        self._jobs: Counter[tuple[str, str]] = Counter()
        self._variants: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def emit(self, record: LogRecord) -> None:
        """Count a job; one without output only gathers files."""
        is_job = getattr(record, "event", None) is LogEvent.JOB_INFO and self.common_settings.dryrun
        if is_job and record.output:  # type: ignore[attr-defined]
            self.add(record.rule_name, record.wildcards, record.reason)  # type: ignore[attr-defined]

    def add(self, rule: str, wildcards: Mapping[str, str], reason: str) -> None:
        """Count a job of a rule; `reason` is in Snakemake's words."""
        group = (rule, why(reason))
        self._jobs[group] += 1
        if "variant" in wildcards:
            self._variants[group].add(wildcards["variant"])

    def text(self) -> str:
        """The counts, a line each; empty where no job is planned."""
        lines = [
            f"  {count} {rule}: {reason}{_variants(self._variants[rule, reason])}"
            for (rule, reason), count in self._jobs.items()
        ]
        return "\n".join(["Planned, and why (`-n --quiet host` lists each file):", *lines]) if lines else ""

    def close(self) -> None:
        """Print the counts."""
        if text := self.text():
            self._jobs.clear()
            print(text, file=sys.stdout if self.common_settings.stdout else sys.stderr, flush=True)
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """Snakemake may have another logger that does; this one waits for its end."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """It writes no file."""
        return False

    @property
    def has_filter(self) -> bool:
        """It is quiet by itself, and counts what `quiet` hides."""
        return True

    @property
    def has_formatter(self) -> bool:
        """It formats by itself."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """It does not."""
        return False


def why(reason: str) -> str:
    """A reason of Snakemake without files, so that jobs with the same one are a group."""
    params = PARAMS.search(reason)
    reasons = [words for start, words in REASONS.items() if start in reason]
    if params is not None:
        reasons.append(f"{', '.join(_changed(params['before'], params['now'])) or 'params'} changed")
    if not reasons and FOLLOWS in reason:
        reasons.append("its input is made again")
    return "; ".join(reasons) or reason or "needed"


def _changed(before: str, now: str) -> list[str]:
    """The names of the digests in which parameters differ: a value may be `model 12ab data 34cd`."""
    names: list[str] = []
    for old in map(ast.literal_eval, VALUES.findall(before)):
        for new in map(ast.literal_eval, VALUES.findall(now)):
            was, is_now = old.split(), new.split()
            if len(was) == len(is_now) > 1 and was[::2] == is_now[::2]:
                pairs = zip(was[::2], was[1::2], is_now[1::2], strict=False)
                names += [name for name, one, other in pairs if one != other and name not in names]
    return names


def _variants(names: set[str]) -> str:
    if not names:
        return ""
    if len(names) > MAX_NAMES:
        return f" ({len(names)} variants)"
    return f" (variant{'' if len(names) == 1 else 's'} {', '.join(sorted(names))})"
