"""Activations of a server on a host of its own: folders are pushed, many in one shard, before they are answered for."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from emoprobe.config.execution.storage import Storage
from emoprobe.storage.bucket import Bucket
from emoprobe.storage.push import push_folders
from emoprobe.storage.shard import PREFIX

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
            # The same folder may have been captured twice; the last one lies there.
            folders = list(dict.fromkeys(folder for folder, _ in batch))
            try:
                places = push_folders(self._bucket, folders)
                found = [places[folder].values() for folder, _ in batch]
            except Exception as error:
                for _, pushed in batch:
                    pushed.set_exception(error)
                continue
            for (_, pushed), place in zip(batch, found, strict=True):
                pushed.set_result(place)
