"""What a thin client sends: one line of fields between tabs, first the pool's token (see `scripts/ask_pool.sh`)."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

JobKind = Literal["sample", "generate", "capture", "tokens"]
QUESTIONS = "questions"


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
    """What is to be made. The variant of a `sample` is `questions`; a sample may end in a draw, such as `-d2`."""

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


def parse(line: str) -> tuple[Caller, Job]:
    """Read a client's line, without the token.

    Raises:
        ProtocolError: it has other fields, or asks for an unknown kind of job.
    """
    fields = line.split("\t")
    if len(fields) != 8 or not fields[3].isdecimal():
        raise ProtocolError(f"the pool cannot read the request {line!r}")
    if fields[4] not in get_args(JobKind):
        raise ProtocolError(f"the pool knows no job {fields[4]!r}; it knows {', '.join(get_args(JobKind))}")
    plan, results, directory, owner, kind, *rest = fields
    return Caller(plan, results, directory, int(owner)), Job(cast(JobKind, kind), *rest)
