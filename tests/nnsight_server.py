"""An NNsight server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.copies.copy import Copy, Order, begin, has_template
from tests.ports import free_port
from tests.workspace import ROOT, wait_for


class NNsightServer:
    """A server that was started by hand, with its activation root.

    Where there is a template of copies it is one, unless `copied` is False.
    """

    def __init__(
        self, model: Path, root: Path, *arguments: str, api_key: str | None = None, copied: bool | None = None
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
        self.process: subprocess.Popen[bytes] | Copy
        with open(self.log, "w") as log:
            if has_template() if copied is None else copied:
                self.process = begin(Order("server", options, str(ROOT), env), log, log)
            else:
                command = [sys.executable, "-m", "server", *options]
                self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
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
