"""Activations of requests: check, compute in a pass, write below one root, push to object storage."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import queue
import re
import threading
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from emoprobe.config.execution.storage import Storage
from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Dtype
from emoprobe.models.architecture import HookPointError
from emoprobe.models.positions import PositionError, resolve
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationError, ActivationMetadata, TokenSpans
from emoprobe.results.layout import ACTIVATION_FILES
from emoprobe.results.record import DamagedError
from emoprobe.storage.bucket import Bucket, StorageError
from emoprobe.storage.push import push_folders
from emoprobe.storage.shard import PREFIX
from server.capture.edits import SequenceEdits
from server.capture.engine import BatchEngine, Pass
from server.capture.errors import BadRequestError
from server.capture.model import Captured, ForwardInput, ServedModel
from server.capture.prompts import TokenizedPrompt
from server.capture.schema import Ndif

MAX_NAME = 255
ACCEPTED = "accepted: a folder below the server's activation root"


class SaveDirError(ValueError):
    """A folder that the server may not write to; the message says why."""


class OverflowedError(ValueError):
    """Activations that the stored type cannot hold."""


@dataclass(frozen=True)
class WrittenFolder:
    """A folder that was written."""

    save_dir: str
    sha256: str
    bytes: int
    shapes: dict[str, list[int]]


class ActivationWriter:
    """Writes activation folders below one root and nowhere else.

    It replaces and removes activation folders only: folders that hold the tensors of a capture, or metadata that
    describe one, and no more.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._named = Path(os.path.abspath(root))  # as its users name it, which may lead through symbolic links
        self.root = root.resolve()

    def resolve(self, save_dir: str) -> Path:
        """Return the folder that a request names, relative to the root or absolute.

        Only what lies below the root has to keep to the rules for names: the path of the root is its owner's choice.

        Raises:
            SaveDirError: it is not below the root, leads through a symbolic link out of it, holds files that no capture
                wrote, lies inside of an activation folder, or cannot be a path.
        """
        if "\0" in save_dir or not save_dir.strip():
            raise SaveDirError(f"save_dir is empty or has a NUL character; {ACCEPTED}")
        given = Path(save_dir)
        for root in (self._named, self.root):
            if given.is_relative_to(root):
                given = given.relative_to(root)
        if not given.is_absolute():
            _check_names(given)
        try:
            path = (self.root / given).resolve()
            if path == self.root or not path.is_relative_to(self.root):
                raise SaveDirError(f"save_dir lies outside of the root; {ACCEPTED}")
            _check_names(path.relative_to(self.root))
            if not next(parent for parent in path.parents if parent.exists()).is_dir():
                raise SaveDirError(f"save_dir leads through a file; {ACCEPTED}")
            self._check_place(path)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SaveDirError(f"save_dir cannot be resolved ({reason}); {ACCEPTED}") from None
        return path

    def delete(self, folder: Path) -> None:
        """Delete an activation folder; files in it that no capture wrote stay."""
        if folder.is_dir() and _is_activation_folder(folder):
            atomic.remove_directory(folder, ACTIVATION_FILES)

    def _check_place(self, path: Path) -> None:
        """Check that a folder may be written, or replaced.

        Raises:
            SaveDirError: it holds something else, or lies inside of an activation folder.
        """
        if path.exists() and any(path.iterdir()) and not _is_activation_folder(path):
            raise SaveDirError(f"save_dir exists and holds something else; {ACCEPTED}")
        below = [parent for parent in path.parents if parent.is_relative_to(self.root) and parent != self.root]
        if any((parent / TENSORS).exists() or (parent.is_dir() and _is_activation_folder(parent)) for parent in below):
            raise SaveDirError(f"save_dir lies inside of an activation folder; {ACCEPTED}")

    def write(self, folder: Path, activations: dict[str, torch.Tensor], metadata: dict[str, Any]) -> WrittenFolder:
        """Write a folder with both files in one step.

        Raises:
            OverflowedError: a value is not finite.
            SaveDirError: something else has come to be at its place since it was resolved; it stays as it is.
            OSError: it cannot be written; nothing is left behind.
        """
        activations = {point: tensor.contiguous() for point, tensor in activations.items()}
        for point, tensor in activations.items():
            # NaN goes through both; ten times as fast as isfinite().all().
            least, most = tensor.aminmax()
            if not bool(torch.isfinite(least) & torch.isfinite(most)):
                raise OverflowedError(_not_finite(point, tensor.dtype))
        # `save_file` maps the file into memory, where a full disk ends the process.
        content = save(activations)
        shapes = {point: list(tensor.shape) for point, tensor in activations.items()}
        full = metadata | {
            "shapes": shapes,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        try:
            self._check_place(folder)  # others may have written since it was resolved
            with atomic.directory(folder, ACTIVATION_FILES) as temporary:
                (temporary / TENSORS).write_bytes(content)
                (temporary / METADATA).write_text(json.dumps(full, allow_nan=False) + "\n", encoding="utf-8")
        except (atomic.OccupiedError, NotADirectoryError):
            raise SaveDirError(f"save_dir exists and holds something else; {ACCEPTED}") from None
        return WrittenFolder(str(folder), full["sha256"], full["bytes"], shapes)


def _not_finite(point: str, dtype: torch.dtype) -> str:
    """Return what to do about values at a hook point that are not finite in the stored type."""
    what = f"the activations at {point} are not finite as {str(dtype).removeprefix('torch.')}"
    if dtype == torch.float16:
        return f"{what}; choose dtype bfloat16 or float32"
    return (
        f"{what}, which holds all that a model computes: lower the dose of the edits, or load the model in another "
        "type (model.dtype, or --dtype of the server)"
    )


def _check_names(path: Path) -> None:
    """Check the names on a path below the root.

    Raises:
        SaveDirError: one of them is not accepted.
    """
    if ".." in path.parts or any(len(os.fsencode(part)) > MAX_NAME for part in path.parts):
        raise SaveDirError(f"save_dir has a part that is `..` or too long; {ACCEPTED}")
    if any(part.startswith(".") for part in path.parts):
        raise SaveDirError(f"save_dir has a part that begins with a dot; {ACCEPTED}")
    if path.parts and not re.fullmatch(r"[\w\-./+=@, ]+", str(path)):
        raise SaveDirError(f"save_dir has a character that is no letter, digit or one of - . / + = @ _; {ACCEPTED}")


def _is_activation_folder(path: Path) -> bool:
    """Return whether a folder holds no more than a capture, whose metadata may have been left alone by a push."""
    if not atomic.holds_only(path, ACTIVATION_FILES):
        return False
    if (path / TENSORS).exists():
        return True
    try:
        metadata = ActivationMetadata.read_file(path / METADATA)
    except DamagedError:
        return False
    # Every field is optional there, as another program may leave it out; a capture records at least one of these.
    return bool(metadata.sha256 or metadata.error or metadata.stored)


QUIET_SECONDS = 0.25  # without another folder, after which those that wait are pushed
MOST = 256
FIRST_ATTEMPTS = 3  # at a store that is not known to answer


class Pusher:
    """Pushes the folders that it is given: those of requests that are answered at about the same time go together.

    Args:
        url: where to.
        settings: how requests to the store are made.

    Raises:
        StorageError: the store cannot be used. It is asked at once, before anything is captured for it.
    """

    def __init__(self, url: str, settings: Storage | None = None) -> None:
        settings = settings or Storage()
        Bucket(url, settings.model_copy(update={"attempts": FIRST_ATTEMPTS})).sizes(f"{PREFIX}/none/")
        self._bucket = Bucket(url, settings)
        self._waiting: queue.Queue[tuple[Path, Future[dict[str, Any]]]] = queue.Queue()
        threading.Thread(target=self._run, name="pusher", daemon=True).start()

    def push(self, folder: Path) -> Future[dict[str, Any]]:
        """Push a folder; the result is what a breadcrumb says of it: `uri`, `offset`, `length`."""
        pushed: Future[dict[str, Any]] = Future()
        self._waiting.put((folder, pushed))
        return pushed

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < MOST:
                try:
                    batch.append(self._waiting.get(timeout=QUIET_SECONDS))
                except queue.Empty:
                    break
            # A request that was given up while it waited has nobody left to tell.
            batch = [(folder, pushed) for folder, pushed in batch if pushed.set_running_or_notify_cancel()]
            if batch:
                self._push(batch)

    def _push(self, batch: list[tuple[Path, Future[dict[str, Any]]]]) -> None:
        """Push some folders, and tell those who wait for them."""
        try:
            # The same folder may have been captured twice; the last one lies there.
            places = push_folders(self._bucket, list(dict.fromkeys(folder for folder, _ in batch)))
            stored = [places[folder].values() for folder, _ in batch]
        except Exception as error:
            # A deleted or damaged folder must not fail the others. A store that refuses fails them all.
            if len(batch) > 1 and isinstance(error, ActivationError) and not isinstance(error, StorageError):
                middle = len(batch) // 2
                self._push(batch[:middle])
                self._push(batch[middle:])
                return
            for _, pushed in batch:
                pushed.set_exception(error)
            return
        for (_, pushed), place in zip(batch, stored, strict=True):
            pushed.set_result(place)


DEFAULTS = Ndif(
    layers="all",
    hook_points=list(Capture().hook_points),
    positions=list(Capture().positions),
)
WRITERS = 2  # beside a model on a CPU; more would take its cores
GPU_WRITERS = 8
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
        # float16 overflows on activations of some models that compute in bfloat16.
        stored: Dtype = "bfloat16" if model.dtype == torch.bfloat16 else "float16"
        self._initial = DEFAULTS.model_copy(update={"dtype": stored})
        self._defaults: dict[str, Ndif] = {}
        self._taken: weakref.WeakValueDictionary[Path, asyncio.Lock] = weakref.WeakValueDictionary()
        cores = len(os.sched_getaffinity(0))
        # Each has one thread for itself: teams of theirs would be in the way of the engine's.
        self._writers = ThreadPoolExecutor(
            WRITERS if model.device.type == "cpu" else max(WRITERS, min(GPU_WRITERS, cores // 2)),
            thread_name_prefix="writer",
            initializer=torch.set_num_threads,
            initargs=(1,),
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
        settings = ndif.over(self._initial)
        if settings.push and self.pusher is None:
            raise BadRequestError("ndif.push: this server pushes nowhere; start it with --push URL", "ndif")
        request_id = settings.request_id or uuid.uuid4().hex
        try:
            return CaptureRequest(
                folder=self.storage.resolve(settings.save_dir if settings.save_dir is not None else request_id),
                push=settings.push,
                request_id=request_id,
                layers=self.model.architecture.layers(settings.layers or "all"),
                hook_points=self.model.architecture.hook_points(settings.hook_points or []),
                positions=settings.positions,
                dtype=settings.dtype or self._initial.dtype or "float16",
            )
        except (HookPointError, SaveDirError) as error:
            raise BadRequestError(f"ndif: {error}", "ndif") from None

    def defaults(self, client: str | None) -> Ndif:
        """Return what stands for the fields that an `ndif` of a client leaves out; None for an unknown client."""
        return self._initial if client is None else self._defaults.get(client, self._initial)

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
        if defaults == self._initial:
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

        Requests for one folder take turns, so that each pushes and names what it wrote itself.

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
        taken = self._taken.setdefault(plan.folder, asyncio.Lock())
        await taken.acquire()
        try:
            self.engine.submit_pass(item)
            written = await asyncio.wrap_future(stored)
            place = (
                await asyncio.wrap_future(self.pusher.push(plan.folder))
                if plan.push and self.pusher is not None
                else {}
            )
        except asyncio.CancelledError:
            item.result.cancel()
            raise
        except (OverflowedError, SaveDirError) as error:
            raise BadRequestError(f"ndif: {error}", "ndif") from None
        finally:
            # A write that has begun goes on after its request was given up.
            stored.cancel()
            stored.add_done_callback(partial(_in_loop, asyncio.get_running_loop(), taken.release))
        return {
            **place,
            "save_dir": written.save_dir,
            "shapes": written.shapes,
            "dtype": plan.dtype,
            "sha256": written.sha256,
            "bytes": written.bytes,
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
            try:
                activations = captured.result().activations
            except Exception as error:  # of the GPU, as the copies run after the pass has returned
                raise self.engine.failed(error, "activations could not be copied from the GPU") from None
            stored.set_result(self.storage.write(plan.folder, activations, metadata))
        except Exception as error:
            stored.set_exception(error)
        finally:
            if failure is None:
                self.engine.release(size)


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], object], _: Future[WrittenFolder]) -> None:
    """Call a function in an event loop, from the thread that ended a future."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
