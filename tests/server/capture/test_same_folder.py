"""Requests at once that name the same folder: each tells of what it wrote itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from emoprobe.config.execution.storage import Storage
from emoprobe.results.activation_folder import ActivationFolder, StoredTensors, TokenSpans
from emoprobe.storage.pull import pull_folder
from server.capture.activations import ActivationWriter, CaptureRequest, Captures, Pusher, WrittenFolder
from server.capture.engine import Pass
from server.capture.model import Captured
from server.capture.prompts import TokenizedPrompt

SAVE_DIR = "one/activations/calm/q_0001"
SECONDS = 120.0


class InstantEngine:
    """An engine whose activations are the first token of the sequence, at once."""

    memory = 1 << 30

    def submit_pass(self, item: Pass) -> None:
        ids = item.sequence.token_ids
        item.result.set_running_or_notify_cancel()
        item.result.set_result(Captured({"resid_post": torch.full((1, len(ids), 2), float(ids[0]))}, None))

    def release(self, size: int) -> None:
        """Nothing is held."""


class HeldWriter(ActivationWriter):
    """A writer whose first write goes on once it may."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def write(self, folder: Path, activations: dict[str, torch.Tensor], metadata: dict[str, Any]) -> WrittenFolder:
        if not self.begun.is_set():
            self.begun.set()
            assert self.may_go_on.wait(SECONDS)
        return super().write(folder, activations, metadata)


def captures(writer: ActivationWriter, pusher: Pusher | None = None) -> Captures:
    model = SimpleNamespace(
        name="tiny", dtype=torch.float32, device=torch.device("cpu"), values_held=lambda points: 2 * len(points)
    )
    return Captures(cast(Any, model), cast(Any, InstantEngine()), writer, pusher)


async def make(captures: Captures, token: int, *, push: bool) -> dict[str, Any]:
    folder = captures.storage.resolve(SAVE_DIR)
    plan = CaptureRequest(folder, push, "r", [0], ["resid_post"], "all", "float32")
    return await captures.make(plan, TokenizedPrompt([token, token], TokenSpans(response=(2, 2))), [], None)


def test_each_of_two_requests_names_where_its_own_activations_were_pushed(tmp_path: Path) -> None:
    served = captures(ActivationWriter(tmp_path / "root"), Pusher(f"file://{tmp_path}/bucket"))

    async def both() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(make(served, token, push=True) for token in (1, 2))))

    for token, crumb in zip((1, 2), asyncio.run(both()), strict=True):
        stored = StoredTensors(uri=crumb["uri"], offset=crumb["offset"], length=crumb["length"])
        here = tmp_path / f"{token}" / "calm" / "q_0001"
        pull_folder(here, stored, crumb["sha256"], Storage())
        assert ActivationFolder.read(here).metadata.token_ids == [token, token]


def test_a_request_that_was_given_up_replaces_nothing_that_came_later(tmp_path: Path) -> None:
    writer = HeldWriter(tmp_path / "root")
    served = captures(writer)

    async def scenario() -> dict[str, Any]:
        first = asyncio.create_task(make(served, 1, push=False))
        assert await asyncio.to_thread(writer.begun.wait, SECONDS)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(make(served, 2, push=False))
        # Its write would be done by now, were it not for the one that has begun.
        done, _ = await asyncio.wait({second}, timeout=0.5)
        assert not done
        writer.may_go_on.set()
        return await second

    crumb = asyncio.run(scenario())
    found = ActivationFolder.read(writer.root / SAVE_DIR).metadata
    assert (found.token_ids, found.sha256) == ([2, 2], crumb["sha256"])
