"""An NNsight server in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from tests.copies.copy import Order, launch
from tests.ports import free_port
from tests.workspace import ROOT, wait_for


class NNsightServer:
    """A server that was started by hand, with its activation root.

    Where there is a template of copies it is one, unless `copied` is False.
    """

    def __init__(
        self, model: Path, root: Path, *arguments: str, api_key: str | None = None, copied: bool = True
    ) -> None:
        self.port = free_port()
        self.url, self.root, self.model, self.log = (
            f"http://127.0.0.1:{self.port}",
            root,
            model,
            root.parent / "server.log",
        )
        options = ["--model", str(model), "--served-model-name", "tiny", "--port", str(self.port)]
        options += ["--activation-root", str(root), *arguments]
        env = {**os.environ, "EMOPROBE_API_KEY": api_key or ""}
        with open(self.log, "w") as log:
            self.process = launch(Order("server", options, str(ROOT), env), log, log, copied=copied)
        wait_for(self.is_up, 400, "the NNsight server")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/health", timeout=400).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)
