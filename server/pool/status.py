"""What a pool says of itself, as JSON: to `watch`, to live bars, and to tests."""

from __future__ import annotations

from typing import TypedDict


class WorkerStatus(TypedDict):
    """One server.

    `state` is `waiting`, `starting`, `live` or `failed`; `phase` says in words what it does, `log_line` is the last
    line of its log while it is not live, `error` why it failed or was restarted last.
    """

    name: str
    url: str
    state: str
    phase: str
    log_line: str
    in_flight: int
    served: int
    failures: int
    restarts: int
    error: str | None


class FleetStatus(TypedDict):
    """The servers of one model, of one kind (`vllm` or `nnsight`).

    `standing` is false while another model has its turn. Requests wait for the turn, then for room at a server.
    """

    kind: str
    model: str
    experiments: list[str]
    standing: bool
    waiting_for_turn: int
    waiting_for_room: int
    workers: list[WorkerStatus]


class PoolStatus(TypedDict):
    """A pool: its process, the workflows that it lives for, and the jobs that it works on, by kind."""

    pid: int
    owners: list[int]
    running: dict[str, int]
    fleets: list[FleetStatus]
