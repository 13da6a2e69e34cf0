"""Activation folders that a server wrote to a disk of its own, brought to their place here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.layout import ACTIVATION_FILES
from server.pool.replies import RequestError


class Files(Protocol):
    """A server whose files can be fetched."""

    async def get(self, path: str) -> bytes:
        """The content at a path.

        Raises:
            RequestError: there is none.
        """
        ...

    async def delete(self, path: str) -> None:
        """Delete what is at a path.

        Raises:
            RequestError: it was not.
        """
        ...


async def fetch_from_server(folder: Path, save_dir: str, worker: Files, answer: dict[str, Any]) -> None:
    """Fetch a folder, check it, and put it into its place; the server's copy is deleted then.

    Args:
        folder: its place here.
        save_dir: the folder that the server was asked to write, relative to its root.
        worker: the server.
        answer: its answer, whose breadcrumb has the hash of the tensors.

    Raises:
        RequestError: it did not come, or not whole.
        OSError: it could not be written.
    """
    path = _path(save_dir)
    tensors = await worker.get(f"{path}/{TENSORS}")
    metadata = await worker.get(f"{path}/{METADATA}")
    if hashlib.sha256(tensors).hexdigest() != (answer.get("ndif") or {}).get("sha256"):
        raise RequestError(f"the activations of {save_dir} did not come as they were written: their hash differs")
    await asyncio.to_thread(_write, folder, tensors, metadata)
    await delete_at_server(save_dir, worker)


async def delete_at_server(save_dir: str, worker: Files) -> None:
    """Delete the server's copy of a folder that is somewhere else by now."""
    # What cannot be deleted now is written over by the next capture, or goes with the deployment.
    with contextlib.suppress(RequestError):
        await worker.delete(_path(save_dir))


def _path(save_dir: str) -> str:
    return f"/v1/activations/{quote(save_dir)}"


def _write(folder: Path, tensors: bytes, metadata: bytes) -> None:
    with atomic.directory(folder, ACTIVATION_FILES) as temporary:
        (temporary / TENSORS).write_bytes(tensors)
        (temporary / METADATA).write_bytes(metadata)
