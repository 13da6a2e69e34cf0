"""What a failed job advises, by the kind of its error: "run again" alone only where running again can help."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from emoprobe.results.record import (
    DamagedError,
    MissingError,
    UnreadableError,
    unreadable,
    unreadable_words,
    what_to_do,
)
from server.pool import advice
from server.pool.connections import RequestError
from server.pool.fleet import Fleet, GaveUpError, RefusedError, ServerDemand
from server.pool.launcher import Endpoint
from server.pool.worker import Worker, WorkerLimits
from tests.conftest import StubServer
from tests.server.pool.house import SECONDS


def refused(status: int) -> RequestError:
    return RequestError(f"status {status}", status=status)


@pytest.mark.parametrize(
    ("errors", "change"),
    [
        ([refused(500)] * 3, None),
        ([refused(503)] * 3, None),
        ([RequestError("the connection broke", broken=True)] * 3, None),
        ([refused(500), ValueError("no token ids"), refused(500)], None),
        ([refused(500), refused(401)], "workers.api_key_env"),
        ([refused(403)], "workers.api_key_env"),
        ([refused(404)], "workers.model_name"),
        ([refused(507)] * 3, "make room"),
        ([refused(502)] * 3, "object storage"),
        ([RequestError("no answer within 3 s", timed_out=True)] * 3, "workers.timeout"),
        ([ValueError("no token ids")] * 3, "workers.endpoints"),
    ],
)
def test_of_a_request_that_every_attempt_failed(errors: list[RequestError | ValueError], change: str | None) -> None:
    said = advice.for_attempts(errors)
    assert said.startswith("run again") is (change is None)
    assert (change or "run again") in said


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (errno.ENOSPC, "make room on the disk"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "right to read and write"),
        (errno.EROFS, "for writing"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, None),
        (errno.ESTALE, None),
    ],
)
def test_of_a_file_that_cannot_be_read_or_written(number: int, change: str | None) -> None:
    said = what_to_do(OSError(number, "words"))
    assert said.startswith("run again") is (change is None)
    assert (change or "run again") in said


@pytest.mark.parametrize(
    ("log", "change"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "does not fit"),
        ("ValueError: No available memory for the cache blocks.", "generation.engine.max_model_len"),
        ("User-specified max_model_len (9) is greater than the derived max_model_len (8)", "to what the model holds"),
        ("ModuleNotFoundError: No module named 'bitsandbytes'", "install the package"),
        ("OSError: [Errno 28] No space left on device", "make room on the disk"),
        ("api_server.py: error: unrecognized arguments: --fast", "generation.engine.extra_args"),
        ("something else", "change what the log names"),
    ],
)
def test_of_servers_that_cannot_be_started(log: str, change: str) -> None:
    assert change in advice.for_server(log)


def test_of_a_result_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    missing = unreadable(path, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    forbidden = unreadable(path, PermissionError(errno.EACCES, "Permission denied"))
    damaged = unreadable(path, ValueError("Expecting value"))
    assert isinstance(missing, MissingError)
    assert isinstance(forbidden, UnreadableError)
    assert str(damaged) == f"{path} is damaged (Expecting value); delete it and run again"
    assert "delete" not in str(forbidden)
    assert "give this user the right to read" in str(forbidden)
    assert "delete its folder" not in unreadable_words(PermissionError(errno.EACCES, "Permission denied"), "its folder")
    assert "delete its folder" in unreadable_words(ValueError("HeaderTooLarge"), "its folder")
    assert {type(each) for each in (missing, forbidden, damaged)} <= {MissingError, UnreadableError, DamagedError}


def ask(*servers: StubServer) -> list[str | None]:
    """Ask servers one question; the error of each attempt."""

    async def scenario() -> Any:
        fleet = Fleet("vllm", "stub", 3, None)
        limits = WorkerLimits(4, 0, SECONDS, SECONDS)
        fleet.workers += [
            Worker(f"endpoint-{number}", "stub", None, limits, Endpoint(server.url), fleet.changed)
            for number, server in enumerate(servers)
        ]
        body = {"model": "stub", "messages": [{"role": "user", "content": "1 + 1?"}], "seed": 0}
        fleet.start()
        try:
            while not all(worker.state == "live" for worker in fleet.workers):
                await asyncio.sleep(0.01)
            return (await fleet.deliver(ServerDemand(0, "/v1/chat/completions", body, SECONDS, dict)))[1]
        finally:
            await fleet.stop()

    return [attempt.error for attempt in asyncio.run(asyncio.wait_for(scenario(), SECONDS)).attempts]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_every_server_is_asked_of_each_once(stub: Any, status: int) -> None:
    """A server may have another key or model than the rest; none is asked twice, and the job says what to change."""
    first, second = stub(), stub()
    first.set_faults({"kind": "status", "status": status, "times": 99})
    assert len(ask(first, second)) == 2
    second.set_faults({"kind": "status", "status": status, "times": 99})
    with pytest.raises(RefusedError, match="every server refused the request: status") as refusal:
        ask(first, second)
    assert len(refusal.value.attempts) == 2
    assert "What to do: set workers." in str(refusal.value)


@pytest.mark.parametrize("status", [400, 422])
def test_a_bad_request_is_asked_once(stub: Any, status: int) -> None:
    servers = [stub(), stub()]
    for server in servers:
        server.set_faults({"kind": "status", "status": status, "times": 99})
    with pytest.raises(RefusedError, match="change what is asked") as refusal:
        ask(*servers)
    assert len(refusal.value.attempts) == 1


def test_what_a_next_run_may_get_says_so(stub: Any) -> None:
    server = stub()
    server.set_faults({"kind": "status", "status": 500, "times": 99})
    with pytest.raises(GaveUpError, match="What to do: run again for new attempts"):
        ask(server)
