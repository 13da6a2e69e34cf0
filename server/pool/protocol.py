"""Requests to the pool: typed jobs, and the JSON lines that carry them.

A connection begins with a line of the pool's token, a tab, and `status` or `jobs`. After `jobs`, each line of the
client is a request and each line of the pool an answer: `[number, reason]`, with an empty reason where the job
succeeded. A client that knows its plan also sends which kinds of jobs remain, which has no answer.

This module, `client`, `ask` and what they import at their top need the standard library only: without this project's
executor, every job starts an interpreter.
"""

from __future__ import annotations

import json
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

STATUS, JOBS, REMAINING = "status", "jobs", "remaining"


@dataclass(frozen=True)
class Job(ABC):
    """One thing for the pool to make; each kind is a class of its own. A sample may end in a draw, such as `-d2`."""

    kind: ClassVar[str]
    experiment: str

    @property
    def words(self) -> list[str]:
        """The kind and all fields, in order, as the command line and the wire have them."""
        return [self.kind, *(getattr(self, each.name) for each in fields(self))]

    @property
    @abstractmethod
    def label(self) -> str:
        """The name in messages, which is also the path of the job's log below the folder of its kind."""

    @property
    def served_for(self) -> str:
        """Key of `Access.turns` for the model that this job uses."""
        return self.experiment


@dataclass(frozen=True)
class PairJob(Job):
    """A job for one sample of one variant."""

    variant: str
    sample: str

    @property
    def label(self) -> str:
        """`{variant}/{sample}`."""
        return f"{self.variant}/{self.sample}"


@dataclass(frozen=True)
class GenerateJob(PairJob):
    """Generate a trajectory; where the backend captures inline, with its activations."""

    kind: ClassVar[str] = "generate"


@dataclass(frozen=True)
class OutcomesJob(PairJob):
    """Measure what graders ask the model about a trajectory."""

    kind: ClassVar[str] = "outcomes"


@dataclass(frozen=True)
class JudgeJob(Job):
    """Have a trajectory judged; `judge` is the label of the grader."""

    kind: ClassVar[str] = "judge"
    judge: str
    variant: str
    sample: str

    @property
    def label(self) -> str:
        """`{judge}/{variant}/{sample}`."""
        return f"{self.judge}/{self.variant}/{self.sample}"

    @property
    def served_for(self) -> str:
        """Key of `Access.turns` for the judge."""
        return f"{self.experiment}/{self.judge}"


@dataclass(frozen=True)
class CaptureJob(PairJob):
    """Capture the activations of a trajectory."""

    kind: ClassVar[str] = "capture"


@dataclass(frozen=True)
class TokensJob(PairJob):
    """Capture a trajectory at every token, for the features."""

    kind: ClassVar[str] = "tokens"


@dataclass(frozen=True)
class ConditionJob(Job):
    """A job for a steered trajectory; `condition` is such as `joy/add-all/L14/d0.4`, or `none`."""

    condition: str
    variant: str
    sample: str

    @property
    def label(self) -> str:
        """`{condition}/{variant}/{sample}`."""
        return f"{self.condition}/{self.variant}/{self.sample}"


@dataclass(frozen=True)
class SteerJob(ConditionJob):
    """Generate a steered trajectory."""

    kind: ClassVar[str] = "steer"


@dataclass(frozen=True)
class ScoreJob(ConditionJob):
    """Score a steered trajectory."""

    kind: ClassVar[str] = "score"


KINDS: dict[str, type[Job]] = {
    each.kind: each for each in (GenerateJob, OutcomesJob, JudgeJob, CaptureJob, TokensJob, SteerJob, ScoreJob)
}


@dataclass(frozen=True)
class Caller:
    """The workflow run that asks.

    Attributes:
        plan: the folder with one resolved config an experiment.
        results: the folder of the experiments' folders.
        directory: the working directory of the workflow, where relative paths of data start.
        owner: the process of the workflow; the pool ends once all its owners have.
    """

    plan: str
    results: str
    directory: str
    owner: int

    def absolute(self) -> Caller:
        """The same with absolute paths: the pool works in another directory."""
        join = os.path.join
        return Caller(join(self.directory, self.plan), join(self.directory, self.results), self.directory, self.owner)


@dataclass(frozen=True)
class Access:
    """Access of one instance of the workflow to its pool.

    Attributes:
        address: the file with the pool's address.
        caller: the workflow run. Its paths are relative to its directory, so that commands are short.
        python: the interpreter that starts a pool.
        code: the folder of `server/` and `scripts/`.
        turns: experiment → (the turn of its model, the place of the experiment): the order of requests.
        requests: in flight at all servers of one kind, as the configuration allows.
    """

    address: Path
    caller: Caller
    python: str
    code: Path
    turns: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    requests: int = field(default=0, compare=False)


@dataclass(frozen=True)
class JobRequest:
    """A job of one instance of the workflow; as text, the command that has it done.

    Rules carry it in `params`, where Snakemake records only plain values: neither a process number nor the place of an
    interpreter makes anything again.
    """

    access: Access
    job: Job

    @property
    def order(self) -> tuple[int, int]:
        """The turn of the model that is asked, and the place of the experiment."""
        return self.access.turns.get(self.job.served_for, (-1, -1))

    def __str__(self) -> str:
        access = self.access
        command = [access.python, "-IS", str(access.code / "server/pool/ask.py"), "--pool", str(access.address)]
        command += ["--plan", access.caller.plan, "--results", access.caller.results]
        command += ["--owner", str(access.caller.owner), *self.job.words]
        return shlex.join(command)


class ProtocolError(ValueError):
    """Raised for a request that the pool cannot read; `number` is that of the request, None where it has none."""

    number: int | None = None


def encode(number: int, caller: Caller, job: Job) -> str:
    """Write a request, of a caller with absolute paths, as a line."""
    return json.dumps([number, [caller.plan, caller.results, caller.directory, caller.owner], job.words]) + "\n"


def encode_remaining(caller: Caller, kinds: Iterable[str]) -> str:
    """Write, as a line, the kinds of jobs that a caller, with absolute paths, will still ask for or waits for."""
    fields = [caller.plan, caller.results, caller.directory, caller.owner]
    return json.dumps([REMAINING, fields, sorted(kinds)]) + "\n"


def decode_remaining(line: bytes) -> tuple[Caller, frozenset[str]] | None:
    """Read what `encode_remaining` wrote; None for any other line.

    Raises:
        ProtocolError: the line has other fields.
    """
    if not line.startswith(f'["{REMAINING}"'.encode()):
        return None
    try:
        _, caller, kinds = json.loads(line)
        return Caller(*caller), frozenset(kinds)
    except (ValueError, TypeError):
        raise ProtocolError(f"the pool cannot read {line!r:.200}") from None


def decode(line: str | bytes) -> tuple[int, Caller, Job]:
    """Read a request.

    Raises:
        ProtocolError: the line has other fields, or asks for an unknown kind of job.
    """
    error = ProtocolError(f"the pool cannot read the request {line!r:.200}")
    try:
        number, caller, words = json.loads(line)
    except (ValueError, TypeError):
        raise error from None
    if not isinstance(number, int):
        raise error
    error.number = number
    if not isinstance(caller, list) or [type(each) for each in caller] != [str, str, str, int]:
        raise error
    try:
        return number, Caller(*caller), job_of(words)
    except ProtocolError as wrong:
        wrong.number = number
        raise


def job_of(words: object) -> Job:
    """Make a job of its words, the reverse of `Job.words`.

    Raises:
        ProtocolError: the kind is unknown, or has other fields.
    """
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ProtocolError(f"{words!r:.200} is no job")
    kind, *values = words
    if kind not in KINDS:
        raise ProtocolError(f"unknown kind of job {kind!r}; the pool knows {', '.join(KINDS)}")
    names = [each.name for each in fields(KINDS[kind])]
    if len(values) != len(names):
        raise ProtocolError(f"a job of kind {kind} takes {', '.join(names)}, not {values}")
    return KINDS[kind](*values)
