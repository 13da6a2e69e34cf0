"""What the tests share: one prepared model, stub servers, and folders to run experiments in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emoprobe.config.science.model import Model
from emoprobe.models import source as models
from tests.nnsight_server import NNsightServer
from tests.ports import free_port
from tests.seaweed import SeaweedFS
from tests.slurm import Slurm, running
from tests.workspace import ROOT, Workspace, wait_for

os.environ["HF_HUB_OFFLINE"] = "1"
# Tests run side by side, a few for each core: more threads would be in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long anything may take before a test fails; nothing is measured by it.
PATIENCE = 300.0

# Groups of tests by how long they take, the longest first, so that all workers end together; others follow as they come.
LONGEST = (
    "faults-of-captures",
    "tests/workflow/test_features.py",
    "slurm",
    "faults-of-servers",
    "tests/workflow/test_vllm.py",
    "tests/workflow/test_storage.py",
    "tests/workflow/test_steering.py",
    "tests/server/deploy/test_ssh.py",
    "tests/workflow/test_studies.py",
    "nnsight",
    "faults",
    "tests/workflow/test_module.py",
    "tests/packaging/test_wheel.py",
    "finished",
    "tests/workflow/test_capture.py",
    "tests/workflow/test_many_jobs.py",
    "tests/emoprobe/stages/test_folder.py",
    "tests/workflow/test_secrets.py",
    "tests/workflow/test_mistakes.py",
    "tests/emoprobe/analysis/test_probes.py",
    "tests/emoprobe/analysis/test_calibration.py",
    "tests/emoprobe/analysis/features/test_calibration.py",
)

VARIANTS = {
    "control": {},
    "frustration": {"text": "You keep getting this wrong.", "valence": "negative"},
    "calm": {"texts": ["It is a quiet day.", "All is still."], "valence": "neutral"},
}


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` starts: tests wait for servers half of the time, and a worker takes 1 GB."""
    return min(2 * len(os.sched_getaffinity(0)), 12)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file on one worker of xdist, as they share fixtures; let the longest of all begin first."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group_of(item), len(places)))


def group_of(item: pytest.Item) -> str:
    """The tests that share a worker with this one: those of its file, or of its mark `xdist_group`."""
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded model as a directory, converted once and kept between sessions."""
    return Path(models.prepare(Model(), ROOT / "results/models").path)


class StubServer:
    """A stub server in a process of its own."""

    def __init__(self, delay: float = 0.0, api_key: str | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        command = [
            sys.executable,
            "-m",
            "tests.stub_server",
            str(self.port),
            str(delay),
            *([api_key] if api_key else []),
        ]
        self.process = subprocess.Popen(command, cwd=ROOT)
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

    def start(delay: float = 0.0, api_key: str | None = None) -> StubServer:
        started.append(StubServer(delay, api_key))
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
def workspace(tmp_path: Path, smollm2: Path) -> Callable[..., Workspace]:
    """Make a small experiment whose servers are stubs; keyword arguments are whole sections of its config."""

    def make(*servers: StubServer, name: str = "tiny", **sections: Any) -> Workspace:
        config: dict[str, Any] = {
            "experiment": {"name": name},
            "model": {"source": str(smollm2)},
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
