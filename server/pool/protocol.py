"""What a thin client sends: one line of fields between tabs, first the pool's token (see `scripts/ask_pool.sh`)."""

from __future__ import annotations

from typing import NamedTuple, cast

from emoprobe.results.layout import JOB_KINDS, JobKind

QUESTIONS = "questions"
# Instead of a job: many jobs follow, each on a line that begins with a number and a tab. Each answer is a line of JSON,
# the number and why the job failed, empty where it did not.
STREAM = "jobs"


class Caller(NamedTuple):
    """The workflow that asks.

    `plan` is the folder with one resolved config an experiment, `results` the folder of the experiments' folders,
    `directory` where the workflow was started, which relative paths of data start from; all three are absolute.
    `owner` is the workflow's process.
    """

    plan: str
    results: str
    directory: str
    owner: int


class Job(NamedTuple):
    """What is to be made. The variant of a `sample` is `questions`; a sample may end in a draw, such as `-d2`.

    That of a steered trajectory has its condition before it, such as `joy/add-all/L14/d0.4/control`; that of a
    direction is `directions`, and its name is in the place of the sample.
    """

    kind: JobKind
    experiment: str
    variant: str
    sample: str

    @property
    def pair(self) -> str:
        """How messages call it."""
        return f"{self.variant}/{self.sample}"


class ProtocolError(ValueError):
    """A line that asks for nothing that the pool knows."""


def line(caller: Caller, job: Job) -> str:
    """What asks for a job, without the token."""
    return "\t".join([caller.plan, caller.results, caller.directory, str(caller.owner), *job])


def parse(line: str) -> tuple[Caller, Job]:
    """Read a client's line, without the token.

    Raises:
        ProtocolError: it has other fields, or asks for an unknown kind of job.
    """
    fields = line.split("\t")
    if len(fields) != 8 or not fields[3].isdecimal():
        raise ProtocolError(f"the pool cannot read the request {line!r}")
    if fields[4] not in JOB_KINDS:
        raise ProtocolError(f"the pool knows no job {fields[4]!r}; it knows {', '.join(JOB_KINDS)}")
    plan, results, directory, owner, kind, *rest = fields
    return Caller(plan, results, directory, int(owner)), Job(cast(JobKind, kind), *rest)
