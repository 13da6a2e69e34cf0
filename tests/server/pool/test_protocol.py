"""Requests to the pool: typed jobs, their lines, and the commands that ask for them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emoprobe.results.layout import JOB_KINDS
from server.pool.protocol import (
    KINDS,
    Access,
    Caller,
    CaptureJob,
    GenerateJob,
    Job,
    JobRequest,
    JudgeJob,
    OutcomesJob,
    ProtocolError,
    ScoreJob,
    SteerJob,
    TokensJob,
    decode,
    encode,
    job_of,
)
from tests.workspace import ROOT

CALLER = Caller("/plan", "/results", "/home", 7)
EVERY: list[tuple[Job, str]] = [
    (GenerateJob("one", "calm", "sum_0001-d2"), "calm/sum_0001-d2"),
    (OutcomesJob("one", "calm", "sum_0001"), "calm/sum_0001"),
    (JudgeJob("one", "polite", "calm", "sum_0001"), "polite/calm/sum_0001"),
    (CaptureJob("one", "calm", "sum_0001"), "calm/sum_0001"),
    (TokensJob("one", "calm", "sum_0001"), "calm/sum_0001"),
    (SteerJob("one", "joy/add-all/L14/d0.4", "calm", "sum_0001"), "joy/add-all/L14/d0.4/calm/sum_0001"),
    (ScoreJob("one", "none", "calm", "sum_0001"), "none/calm/sum_0001"),
]


@pytest.mark.parametrize(("job", "label"), EVERY)
def test_a_job_is_its_line_and_its_words(job: Job, label: str) -> None:
    assert decode(encode(3, CALLER, job)) == (3, CALLER, job)
    assert job_of(job.words) == job
    assert job.label == label


def test_there_is_a_class_for_each_kind_and_a_folder_of_logs() -> None:
    assert set(KINDS) == set(JOB_KINDS) - {"sample", "direction"}
    assert {type(job) for job, _ in EVERY} == set(KINDS.values())
    different: set[Job] = {GenerateJob("a", "b", "c"), CaptureJob("a", "b", "c")}
    assert len(different) == 2


@pytest.mark.parametrize("path", ["/tmp/a\tb\nc", "/tmp/\u2028", "/tmp/\udcff"])
def test_any_path_stays_in_its_line(path: str) -> None:
    line = encode(1, Caller(path, path, path, 7), GenerateJob("one", "calm", "a_1"))
    assert line.encode().count(b"\n") == 1
    assert decode(line)[1].plan == path


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("", None),
        ("[]", None),
        ("nonsense", None),
        ('["1", [], []]', None),
        (json.dumps([1, ["/p", "/r", "/d"], ["generate", "one", "calm", "s_1"]]), 1),
        (json.dumps([1, ["/p", "/r", "/d", "7"], ["generate", "one", "calm", "s_1"]]), 1),
        (json.dumps([2, ["/p", "/r", "/d", 7], ["dance", "one", "calm", "s_1"]]), 2),
        (json.dumps([2, ["/p", "/r", "/d", 7], ["generate", "one", "calm"]]), 2),
        (json.dumps([2, ["/p", "/r", "/d", 7], ["generate", "one", "calm", 3]]), 2),
        (json.dumps([2, ["/p", "/r", "/d", 7], []]), 2),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, number: int | None) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode(line)
    assert raised.value.number == number


def test_a_command_survives_a_shell(tmp_path: Path) -> None:
    access = Access(Path("/run/a b/x.address"), Caller("it's a plan", "re$ults", "/", 7), "/py thon", Path("/co(de"))
    command = str(JobRequest(access, SteerJob("one", "none", "calm", "sum_0001")))
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == shlex.split(command)
    assert shlex.split(command)[2] == "/co(de/server/pool/ask.py"


def test_asking_needs_the_standard_library_only() -> None:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import server.pool.client; print('emoprobe' in sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", script, str(ROOT)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
