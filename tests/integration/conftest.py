"""NNsight servers, and copies of finished experiments, for the tests of this folder."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import tiny_models
from tests.workspace import ROOT, Workspace, wait_for


class NNsightServer:
    """A server that was started by hand, with its activation root."""

    def __init__(self, model: Path, root: Path, *arguments: str, api_key: str | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url, self.root, self.model, self.log = (
            f"http://127.0.0.1:{self.port}",
            root,
            model,
            root.parent / "server.log",
        )
        command = [sys.executable, "-m", "server", "--model", str(model), "--served-model-name", "tiny"]
        command += ["--port", str(self.port), "--activation-root", str(root), *arguments]
        env = {**os.environ, "EMOPROBE_API_KEY": api_key or ""}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        wait_for(self.is_up, 120, "the NNsight server")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="session")
def tiny(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny random model by its architecture."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny_models.make(architecture, smollm2, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return get


@pytest.fixture(scope="session")
def nnsight_server(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], NNsightServer]]:
    """A running server by the architecture of its model; each is started once."""
    running: dict[str, NNsightServer] = {}

    def get(architecture: str) -> NNsightServer:
        if architecture not in running:
            root = tmp_path_factory.mktemp(f"server-{architecture}") / "activations"
            running[architecture] = NNsightServer(tiny(architecture), root)
        return running[architecture]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture
def after(finished: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """A copy of the finished experiment of a module, with a changed config."""

    def change(**sections: Any) -> Workspace:
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder)
        config = copy.deepcopy(finished.config)
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        return Workspace(folder, config)

    return change
