"""What a request wants captured: checked before anything runs, computed in a pass, stored by threads of their own."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emoprobe.config.science.capture import Capture
from emoprobe.models.architecture import HookPointError
from emoprobe.models.positions import PositionError, resolve
from emoprobe.results.activation_folder import TokenSpans
from server.capture.activation_writer import ActivationWriter, OverflowedError, SaveDirError, WrittenFolder
from server.capture.edits import SequenceEdits
from server.capture.engine import BatchEngine, Pass
from server.capture.errors import BadRequestError
from server.capture.model import Captured, ForwardInput, ServedModel
from server.capture.prompts import TokenizedPrompt
from server.capture.schema import Ndif

if TYPE_CHECKING:
    from server.capture.pushing import Pusher

DEFAULTS = Ndif(
    layers="all",
    hook_points=list(Capture().hook_points),
    positions=list(Capture().positions),
    dtype="float16",
)
WRITERS = 2
MAX_CLIENTS = 1024


@dataclass(frozen=True)
class CaptureRequest:
    """A checked wish for activations: where they go and what they are."""

    folder: Path
    push: bool
    request_id: str
    layers: list[int]
    hook_points: list[str]
    positions: Any
    dtype: str


class Captures:
    """The activations that requests ask for, the folders that they go to, and each client's defaults."""

    def __init__(
        self, model: ServedModel, engine: BatchEngine, storage: ActivationWriter, pusher: Pusher | None = None
    ) -> None:
        self.model, self.engine, self.storage, self.pusher = model, engine, storage, pusher
        self._defaults: dict[str, Ndif] = {}
        # Each has one thread for itself: teams of theirs would be in the way of the engine's.
        self._writers = ThreadPoolExecutor(
            WRITERS, thread_name_prefix="writer", initializer=torch.set_num_threads, initargs=(1,)
        )

    def folder(self, save_dir: str) -> Path:
        """The activation folder that a client names.

        Raises:
            BadRequestError: it is none, or lies elsewhere.
        """
        try:
            return self.storage.resolve(save_dir)
        except SaveDirError as error:
            raise BadRequestError(str(error), "save_dir") from None

    def plan(self, ndif: Ndif | None) -> CaptureRequest | None:
        """Check what a request's `ndif` wants captured, before anything is computed; None where it is nothing.

        Raises:
            BadRequestError: it asks for a layer, hook point or folder that cannot be had.
        """
        if ndif is None or not ndif.captures:
            return None
        wanted = ndif.over(DEFAULTS)
        if wanted.push and self.pusher is None:
            raise BadRequestError("ndif.push: this server pushes nowhere; start it with --push URL", "ndif")
        request_id = wanted.request_id or uuid.uuid4().hex
        try:
            return CaptureRequest(
                folder=self.storage.resolve(wanted.save_dir if wanted.save_dir is not None else request_id),
                push=wanted.push,
                request_id=request_id,
                layers=self.model.architecture.layers(wanted.layers or "all"),
                hook_points=self.model.architecture.hook_points(wanted.hook_points or []),
                positions=wanted.positions,
                dtype=wanted.dtype or "float16",
            )
        except (HookPointError, SaveDirError) as error:
            raise BadRequestError(f"ndif: {error}", "ndif") from None

    def defaults(self, client: str | None) -> Ndif:
        """Return what stands for the fields that an `ndif` of a client leaves out; None for an unknown client."""
        return DEFAULTS if client is None else self._defaults.get(client, DEFAULTS)

    def set_defaults(self, client: str, defaults: Ndif) -> None:
        """Set the defaults of one client, which hold for no other.

        Raises:
            BadRequestError: they name a layer, hook point or position that the model does not have, or the server
                remembers too many clients already.
        """
        try:
            self.model.architecture.layers(defaults.layers or "all")
            self.model.architecture.hook_points(defaults.hook_points or [])
            # In the longest sequence, all of it prompt: what no sequence has, no request can use.
            resolve(defaults.positions or "all", TokenSpans(response=(self.model.max_length,) * 2))
        except (HookPointError, PositionError) as error:
            raise BadRequestError(str(error)) from None
        if defaults == DEFAULTS:
            self._defaults.pop(client, None)
            return
        if client not in self._defaults and len(self._defaults) >= MAX_CLIENTS:
            raise BadRequestError(
                f"this server remembers the defaults of {MAX_CLIENTS} clients and no more; send the fields in each ndif"
            )
        self._defaults[client] = defaults

    async def make(
        self, plan: CaptureRequest, prompt: TokenizedPrompt, completion: list[int], steering: SequenceEdits | None
    ) -> dict[str, Any]:
        """Capture and store the activations of prompt and completion; return the breadcrumb.

        Raises:
            BadRequestError: positions that the sequence does not have, more than memory can hold, values that the
                stored type cannot, or a folder whose place something else has taken.
            OSError: the folder cannot be written.
            ActivationError: it cannot be pushed.
        """
        ids = prompt.token_ids + completion
        start, end = prompt.spans.response
        spans = prompt.spans.model_copy(update={"response": (start, end + len(completion))})
        try:
            positions = resolve(plan.positions, spans)
        except PositionError as error:
            raise BadRequestError(f"ndif.positions: {error}", "ndif") from None
        dtype = getattr(torch, plan.dtype)
        means = None if plan.positions == "all" else [position.span for position in positions]
        values = self.model.values_held(plan.hook_points) * len(plan.layers)
        # While a pass runs, every token may be held in the model's own type, and the chosen ones in the stored one.
        # Means take a float32 number for each pair of position and token.
        size = values * len(ids) * self.model.dtype.itemsize if means is None else 4 * len(means) * len(ids)
        size += values * len(positions) * (dtype.itemsize + 4)
        if size > self.engine.memory:
            raise BadRequestError(
                f"ndif: this capture takes {size / 2**30:.1f} GiB, the server holds "
                f"{self.engine.memory / 2**30:.1f} GiB (--memory-gib); ask for fewer layers, hook points or positions",
                "ndif",
            )
        metadata = {
            "request_id": plan.request_id,
            "model": self.model.name,
            "model_dtype": str(self.model.dtype).removeprefix("torch."),
            "dtype": plan.dtype,
            "layers": plan.layers,
            "hook_points": plan.hook_points,
            "positions": "all" if plan.positions == "all" else [position.values() for position in positions],
            "token_ids": ids,
            "spans": spans.values(),
        }
        item = Pass(ForwardInput(ids, plan.layers, plan.hook_points, means, dtype, steering=steering), size)
        stored: Future[WrittenFolder] = Future()

        def store(captured: Future[Captured]) -> None:
            if captured.cancelled():
                stored.cancel()
                return
            try:
                self._writers.submit(self._store, plan, metadata, captured, stored, size)
            except Exception as error:  # no thread can be started; the request must not wait for one
                stored.set_exception(error)
                if captured.exception() is None:
                    self.engine.release(size)

        item.result.add_done_callback(store)
        self.engine.submit_pass(item)
        try:
            found = await asyncio.wrap_future(stored)
        except asyncio.CancelledError:
            item.result.cancel()
            raise
        except OverflowedError as error:
            raise BadRequestError(f"ndif.dtype: {error}", "ndif") from None
        except SaveDirError as error:
            raise BadRequestError(f"ndif: {error}", "ndif") from None
        place = (
            await asyncio.wrap_future(self.pusher.push(plan.folder)) if plan.push and self.pusher is not None else {}
        )
        return {
            **place,
            "save_dir": found.save_dir,
            "shapes": found.shapes,
            "dtype": plan.dtype,
            "sha256": found.sha256,
            "bytes": found.bytes,
        }

    def _store(
        self,
        plan: CaptureRequest,
        metadata: dict[str, Any],
        captured: Future[Captured],
        stored: Future[WrittenFolder],
        size: int,
    ) -> None:
        failure = captured.exception()
        try:
            if not stored.set_running_or_notify_cancel():
                return
            if failure is not None:  # the engine has given the memory back itself
                stored.set_exception(failure)
                return
            stored.set_result(self.storage.write(plan.folder, captured.result().activations, metadata))
        except Exception as error:
            stored.set_exception(error)
        finally:
            if failure is None:
                self.engine.release(size)
