"""A finished experiment on a stub server, and copies of finished experiments, for the tests of this folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import VARIANTS, StubServer
from tests.workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, unweighted: Path) -> Iterator[Workspace]:
    """An experiment of four variants on four samples that has been run to its end; tests change copies of it."""
    server = StubServer()
    folder = tmp_path_factory.mktemp("finished")
    (folder / "nagging.py").write_text("def nag(m):\n    m[-1]['content'] += ' Now!'\n    return m\n")
    config = {
        "experiment": {"name": "tiny"},
        "model": {"source": str(unweighted)},
        "dataset": {"samples": 4},
        "variants": {**VARIANTS, "nag": {"transform": "nagging:nag"}},
        "generation": {"max_tokens": 32, "temperature": 0.7},
        "workers": {"endpoints": [server.url], "model_name": "stub"},
        "capture": {"enabled": False},
    }
    workspace = Workspace(folder, config)
    workspace.run()
    yield workspace
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
