"""What goes to the machine to say what it shall do, and what comes back to say how that goes: files of the keeper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from emoprobe.results import atomic

ORDER, STATUS, KEY, ENVIRONMENT, PROCESS = "order.json", "status.json", "key", "environment.json", "keeper.process"


class Order(BaseModel):
    """The order to the keeper: which servers shall stand, and where they push activations. `digest` stands for all."""

    model_config = ConfigDict(frozen=True)

    digest: str
    config: dict[str, Any]
    kinds: list[str]
    push: str | None
    idle_minutes: float | None


class Server(BaseModel):
    """A server that is deployed: its kind, the socket there that leads to it, and what it runs on."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str
    socket: str
    hardware: str


class ServerStatus(Server):
    """How one is: its state as the pool would call it, and in words what it does."""

    state: str
    phase: str
    error: str | None
    restarts: int


class Status(BaseModel):
    """How the keeper gets on. `ended` says why its servers are gone, `model_sha256` what model they have."""

    model_config = ConfigDict(frozen=True)

    digest: str
    phase: str
    model_sha256: str | None = None
    servers: list[ServerStatus] = []
    ended: str | None = None

    def write(self, folder: Path) -> None:
        """Write it into the keeper's folder."""
        atomic.write_text(folder / STATUS, self.model_dump_json(indent=2) + "\n")
