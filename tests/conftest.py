"""What the tests share: one prepared model, stub servers, and folders to run experiments in."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emoprobe.config.science.model import Model
from emoprobe.models import source as models
from tests.copies import inside, template
from tests.copies.copy import Order, has_template, launch
from tests.nnsight_server import NNsightServer
from tests.ports import free_port
from tests.seaweed import SeaweedFS
from tests.slurm import Slurm, running
from tests.workspace import ROOT, Workspace, wait_for, without_weights

os.environ["HF_HUB_OFFLINE"] = "1"

# How long anything may take before a test fails; nothing is measured by it.
PATIENCE = 300.0

VARIANTS = {
    "control": {},
    "frustration": {"text": "You keep getting this wrong.", "valence": "negative"},
    "calm": {"texts": ["It is a quiet day.", "All is still."], "valence": "neutral"},
}


def pytest_configure() -> None:
    """Have one template of copies for all workers.

    Tests run side by side, a few for each core: more threads would be in each other's way.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads of servers that wait for a core do not hold another
    if not has_template():
        folder = Path(tempfile.mkdtemp(prefix="copies-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        template.start(folder / "template")


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` starts: tests wait for servers half of the time, and a worker takes 1 GB."""
    return min(2 * len(os.sched_getaffinity(0)), 12)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests that share what is dear to make on one worker."""
    from tests.schedule import Groups

    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the longest begin first where there are several workers."""
    if hasattr(config, "workerinput"):
        from tests.schedule import sort

        sort(items)


@pytest.fixture(scope="session", autouse=True)
def _checks_are_copies() -> None:
    """Have the checks that tests ask for be copies, as those of a run are: each would import PyTorch anew."""
    inside.order_checks()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded model as a directory, converted once and kept between sessions."""
    return Path(models.prepare(Model(), ROOT / "results/models").path)


@pytest.fixture(scope="session")
def unweighted(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with next to no weights and a short vocabulary, for stub servers."""
    return without_weights(smollm2, tmp_path_factory.mktemp("unweighted"))


class StubServer:
    """A stub server in a process of its own."""

    def __init__(self, delay: float = 0.0, api_key: str | None = None, model: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        arguments = [str(self.port), str(delay), api_key or "", *([] if model is None else [str(model)])]
        self.process = launch(Order("tests.stub_server", arguments, str(ROOT), dict(os.environ)), 1, 2)
        wait_for(self.is_up, PATIENCE, "the stub server")

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=PATIENCE).status_code == 200
        except httpx.HTTPError:
            return False

    def set_faults(self, *faults: dict[str, Any]) -> None:
        httpx.post(f"{self.url}/faults", json=faults, headers=self._headers, timeout=PATIENCE)

    def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/log", headers=self._headers, timeout=PATIENCE).json()
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def stub() -> Iterator[Callable[..., StubServer]]:
    """Start stub servers."""
    started: list[StubServer] = []

    def start(delay: float = 0.0, api_key: str | None = None, model: Path | None = None) -> StubServer:
        started.append(StubServer(delay, api_key, model))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A real SLURM of two nodes, whose commands are on the path."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def workspace(tmp_path: Path, unweighted: Path) -> Callable[..., Workspace]:
    """Make a small experiment whose servers are stubs; keyword arguments are whole sections of its config."""

    def make(*servers: StubServer, name: str = "tiny", **sections: Any) -> Workspace:
        config: dict[str, Any] = {
            "experiment": {"name": name},
            "model": {"source": str(unweighted)},
            "dataset": {"samples": 4},
            "variants": VARIANTS,
            "generation": {"max_tokens": 32},
            "workers": {"endpoints": [server.url for server in servers], "model_name": "stub"},
            "capture": {"enabled": False},
        }
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return Workspace(folder, config)

    return make


@pytest.fixture(scope="session")
def tiny(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny random model by its architecture."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        from tests.server.capture import tiny_models  # costs seconds, and many tests want no model

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


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real object store."""
    store = SeaweedFS(tmp_path_factory.mktemp("seaweed"))
    yield store
    store.stop()
