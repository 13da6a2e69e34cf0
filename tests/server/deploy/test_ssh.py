"""Servers that are deployed over a real ssh to this very machine: what a run makes there, what breaks, what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from emoprobe.config.files import parse_config
from server.deploy.deployment import DEPLOYED, ENVIRONMENT, KEY, PROCESS, TUNNEL, Deployment, Status, place_of
from server.deploy.host import MARK, Host, HostError, Site
from server.deploy.processes import Process
from tests.conftest import PATIENCE
from tests.copies.copy import Order
from tests.seaweed import BUCKET, SECRET_KEY, SeaweedFS, environment
from tests.server.deploy.sshd import Sshd, UnavailableError
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace, finish, processes_of, wait_for


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server of ssh on this machine."""
    try:
        server = Sshd(tmp_path_factory.mktemp("sshd"))
    except UnavailableError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


class Far(Workspace):
    """A folder whose experiment has its servers on the machine `gpu`."""

    host_folder: Path

    def call(self, name: str, *arguments: str, ok: bool = True) -> str:
        """What `make deploy` and its like call; return what it printed."""
        done = self.finish_script(name, *arguments)
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def finish_script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts to its end."""
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return finish(
            Order(f"scripts.{name}", ["--config", str(self.write_config()), *arguments], str(self.folder), env)
        )

    @property
    def place(self) -> Path:
        return self.folder / place_of(parse_config(self.config).deploy, DEPLOYED)

    @property
    def record(self) -> Deployment:
        found = Deployment.read(self.place)
        assert found is not None
        return found

    @property
    def status(self) -> Status:
        return Status.model_validate_json((self.host_folder / "run/status.json").read_bytes())

    @property
    def keeper(self) -> Process:
        found = Process.read(self.host_folder / "run" / PROCESS)
        assert found is not None
        return found

    @property
    def tunnel(self) -> Process:
        found = Process.read(self.place / TUNNEL)
        assert found is not None
        return found


def children(number: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == number and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def settings(sshd: Sshd, model: Path, host_folder: Path) -> dict[str, Any]:
    """One request an answer and its capture, by a model that is small enough to take no time."""
    return {
        "experiment": {"name": "far"},
        "model": {"source": str(model)},
        "dataset": {"samples": 3},
        "variants": {"control": {}, "calm": {"text": "It is a quiet day."}},
        "generation": {"backend": "nnsight", "max_tokens": 24},
        "capture": {"hook_points": ["resid_post"], "positions": ["last_prompt", "response_mean"]},
        "deploy": {
            "backend": "ssh",
            "host": sshd.name,
            "ssh_config": str(sshd.client_config),
            "folder": str(host_folder),
            "python": sys.executable,
        },
    }


@pytest.fixture(scope="module")
def far(
    sshd: Sshd, tiny: Callable[[str], Path], seaweed: SeaweedFS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Far]:
    """A deployment that all tests of this module share, whose servers push, and a finished run on it."""
    host_folder = tmp_path_factory.mktemp("gpu") / "deployed"
    folder = tmp_path_factory.mktemp("far")
    storage = {"storage": {"url": f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", "attempts": 3}}
    workspace = Far(folder, {**settings(sshd, tiny("llama"), host_folder), **storage})
    workspace.host_folder = host_folder
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(seaweed.port).items():
            patch.setenv(name, value)
        try:
            said = workspace.call("deploy")
            assert "AWS_SECRET_ACCESS_KEY" in said
            assert SECRET_KEY not in said
            workspace.run("--until", "generate_and_capture", "describe_experiment")
            yield workspace
        finally:
            workspace.call("undeploy")


def named(far: Far, name: str, **sections: Any) -> Far:
    """Another experiment on the servers of the deployment."""
    found = Far(far.folder, {**far.config, "experiment": {"name": name}, **sections})
    found.host_folder = far.host_folder
    return found


def tensors(workspace: Workspace) -> dict[str, Any]:
    """Every activation folder's tensor."""
    root = workspace.layout.root
    paths = sorted(root.glob("activations/*/*/activations.safetensors"))
    return {str(path.relative_to(root)): load_file(path)["resid_post"] for path in paths}


def made_again(workspace: Workspace) -> dict[str, bytes]:
    """Every trajectory, after they and their activations were lost and made anew."""
    lost = [*workspace.trajectories(), *tensors(workspace)]
    for path in lost:
        (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate_and_capture")
    assert sorted([*workspace.trajectories(), *tensors(workspace)]) == sorted(lost)
    return workspace.trajectories()


def test_the_same_is_made_there_as_here(far: Far, tmp_path: Path) -> None:
    near = Workspace(tmp_path, {**far.config, "deploy": {}, "storage": {}})
    near.run("--until", "generate_and_capture")
    assert len(near.trajectories()) == 6
    assert far.trajectories() == near.trajectories()
    here, there = tensors(near), tensors(far)
    assert set(here) == set(there)
    assert len(here) == 6
    for name, tensor in here.items():
        np.testing.assert_allclose(there[name].astype(np.float32), tensor.astype(np.float32), rtol=2e-3, atol=2e-3)
    end_pool(near.config)


def test_results_tell_what_they_were_made_on(far: Far) -> None:
    [server] = far.record.servers
    assert server.hardware.startswith("CPU ")
    assert far.json("control", "gsm8k_0001", "agent_state.json")["hardware"] == server.hardware
    assert far.json("metadata.json")["workers"]["hardware"] == {server.url: server.hardware}


def test_activations_come_through_the_bucket(far: Far) -> None:
    from emoprobe.storage.bucket import Bucket

    place = f"{far.config['storage']['url']}/captured"
    assert far.record.push == place
    shards = {f"{place}/{key}" for key in Bucket(place).sizes("shards/")}
    uris = {far.json(str(Path(path).parent), "metadata.json")["stored"]["uri"] for path in tensors(far)}
    assert uris
    assert uris <= shards


def test_without_a_bucket_they_are_fetched(far: Far) -> None:
    fetched = named(far, "fetched", storage={})
    fetched.run("--until", "generate_and_capture")
    assert fetched.trajectories() == far.trajectories()
    assert len(tensors(fetched)) == 6
    assert "stored" not in fetched.json("activations/control/gsm8k_0001/metadata.json")


def test_what_came_here_does_not_stay_there(far: Far) -> None:
    assert list(far.host_folder.glob("activations"))
    assert not list(far.host_folder.glob("activations/**/*.safetensors"))


def test_credentials_get_there_by_the_environment_alone(far: Far) -> None:
    secret = SECRET_KEY.encode()
    assert not (far.host_folder / "run" / ENVIRONMENT).exists()
    for folder in (far.folder, far.host_folder):
        for path in folder.rglob("*"):
            assert not path.is_file() or secret not in path.read_bytes(), path
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret not in entry.read_bytes(), entry
        except OSError:
            continue
    [server] = children(far.keeper.number)
    assert secret in Path(f"/proc/{server}/environ").read_bytes()


STEERED: dict[str, Any] = {
    "dataset": {"samples": 4},
    "variants": {"control": {}, "joy": {"text": "What a day!", "valence": "positive"}},
    "capture": {"hook_points": ["resid_post"], "positions": ["last_prompt"], "dtype": "float32"},
    "steering": {
        "enabled": True,
        "layers": [[0, 2]],
        "doses": [2.0],
        "controls": {"random": 1, "shuffled": 0, "orthogonal": False, "questions": 1},
    },
    "features": {"enabled": True, "layer": 1, "samples": 1, "dtype": "float32"},
}
STEERED_FILES = ("trajectory.jsonl", "scores.json")


def steered(workspace: Workspace, name: str) -> dict[str, bytes]:
    """A file of every steered trajectory."""
    root = workspace.layout.root / "steering"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob(name))}


def test_steering_and_tokens_are_the_same_there_as_here(far: Far, tmp_path: Path) -> None:
    near = Workspace(tmp_path, {**named(far, "steered", **STEERED).config, "deploy": {}, "storage": {}})
    wanted = ("--until", "score", "capture_tokens")
    near.run(*wanted)
    before, scores = (steered(near, name) for name in STEERED_FILES)
    edited = {path: text for path, text in before.items() if path.startswith("joy/add")}
    assert edited
    # Along the very directions that were fitted here.
    there = named(far, "steered", **STEERED)
    shutil.copytree(near.layout.root, there.layout.root)
    for path in before:
        shutil.rmtree((there.layout.root / "steering" / path).parent)
    shutil.rmtree(there.layout.root / "features")
    assert steered(there, "trajectory.jsonl") == {}
    there.run(*wanted, "--rerun-triggers", "mtime")
    assert steered(there, "trajectory.jsonl") == before
    for path, text in steered(there, "scores.json").items():
        assert_near(json.loads(text), json.loads(scores[path]))
    state = next(path for path in there.layout.root.glob("steering/joy/add-*/**/agent_state.json"))
    record = json.loads(state.read_text())
    assert record["hardware"] == far.record.servers[0].hardware
    assert "rows" not in state.read_text()
    assert sum(record["response"]["ndif"]["steering"][0]["tokens"]) > 0
    here, came = (
        {path.parent.parent.name: load_file(path) for path in root.glob("features/tokens/*/*/activations.safetensors")}
        for root in (near.layout.root, there.layout.root)
    )
    assert set(here) == set(came) == {"control", "joy"}
    for variant, tokens in here.items():
        np.testing.assert_allclose(came[variant]["resid_post"], tokens["resid_post"], rtol=1e-4, atol=1e-5)
    assert not list(far.host_folder.glob("activations/**/*.safetensors"))
    end_pool(near.config)


def assert_near(here: dict[str, Any], there: dict[str, Any]) -> None:
    """Two sets of scores are the same but for what batches do to the last digits."""
    assert here.keys() == there.keys()
    for key, value in here.items():
        if isinstance(value, float | list):
            np.testing.assert_allclose(value, there[key], rtol=1e-4, atol=1e-5)
        elif key != "sha256":  # of the scores, to the last digit
            assert value == there[key], key


def test_what_stands_is_left_alone(far: Far) -> None:
    keeper, tunnel, record = far.keeper, far.tunnel, far.record
    assert "stand already" in far.call("deploy")
    assert (far.keeper, far.tunnel, far.record) == (keeper, tunnel, record)


def test_the_logs_can_be_read_from_here(far: Far) -> None:
    said = far.call("monitor", "--once")
    assert "nnsight-0: live" in said
    assert "is ready" in said


def test_the_key_lies_in_files_of_its_own(far: Far) -> None:
    key = (far.place / KEY).read_text()
    assert (far.place / KEY).stat().st_mode & 0o777 == 0o600
    assert (far.host_folder / "run/key").stat().st_mode & 0o777 == 0o600
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert key.encode() not in entry.read_bytes(), entry
        except OSError:
            continue
    holders = {far.place / KEY, far.host_folder / "run/key"}
    for folder in (far.folder, far.host_folder):
        for path in folder.rglob("*"):
            if path.is_file() and path not in holders:
                assert key.encode() not in path.read_bytes(), path


def test_others_do_not_get_in(far: Far) -> None:
    import httpx

    [server] = far.record.servers
    assert httpx.get(f"{server.url}/v1/models", timeout=PATIENCE).status_code == 401
    assert (far.host_folder / "run").stat().st_mode & 0o777 == 0o700


def test_a_tunnel_that_is_killed_comes_back(far: Far) -> None:
    before = far.trajectories()
    for path in before:
        (far.layout.root / path).unlink()
    [ssh] = children(far.tunnel.number)
    run = far.start("--until", "generate_and_capture")
    wait_for(lambda: list(far.layout.root.glob("*/*/trajectory.jsonl")) or run.poll() is not None, PATIENCE)
    os.kill(ssh, signal.SIGKILL)
    assert run.wait(PATIENCE) == 0, (far.folder / "snakemake.out").read_text()[-3000:]
    wait_for(lambda: children(far.tunnel.number) not in ([], [ssh]), PATIENCE, "another ssh")
    assert far.trajectories() == before
    assert made_again(far) == before


def test_a_server_that_is_killed_comes_back(far: Far) -> None:
    before = far.trajectories()
    keeper = far.keeper
    [server] = children(keeper.number)
    os.kill(server, signal.SIGKILL)
    # Requests that come meanwhile wait.
    assert made_again(far) == before
    assert far.status.servers[0].restarts == 1
    assert far.keeper == keeper


def test_after_everything_there_was_killed_it_is_deployed_again(far: Far) -> None:
    before, record = far.trajectories(), far.record
    servers = children(far.keeper.number)
    os.kill(far.keeper.number, signal.SIGKILL)
    wait_for(lambda: all(Process.of(number) is None for number in servers), PATIENCE, "the end of the servers")
    far.call("deploy")
    assert far.record == record
    assert made_again(far) == before


def test_another_folder_gets_neither_the_servers_nor_their_place(far: Far, tmp_path: Path) -> None:
    other = Far(tmp_path, far.config)
    assert f"belongs to a deployment from {os.uname().nodename}:{far.folder}" in other.call("deploy", ok=False)
    assert "nothing is deployed from here" in other.call("undeploy")
    assert far.keeper.lives


def test_what_needs_other_servers_does_not_get_these(far: Far) -> None:
    # Longer sequences are a setting of the servers, which they were not started with.
    changed = Far(far.folder, {**far.config, "experiment": {"name": "other"}})
    changed.config["generation"] = {**far.config["generation"], "engine": {"max_model_len": 512}}
    said = changed.run("--until", "generate_and_capture", ok=False)
    assert "nothing that serves this experiment is deployed" in said
    assert "make deploy" in said


def test_idle_servers_end_and_nothing_is_left_in_the_end(
    sshd: Sshd, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    host_folder = tmp_path / "deployed"
    workspace = Far(tmp_path / "far", settings(sshd, tiny("llama"), host_folder))
    workspace.folder.mkdir()
    workspace.host_folder = host_folder
    workspace.config["deploy"]["idle_minutes"] = 0.05
    # On a slow machine they may have ended before they were reached.
    done = workspace.finish_script("deploy")
    assert done.returncode == 0 or "idle" in done.stderr, done.stderr
    wait_for(lambda: workspace.status.ended is not None and not workspace_keeper(workspace), PATIENCE, "the end")
    assert "deploy.idle_minutes" in (workspace.status.ended or "")
    workspace.call("undeploy")
    assert not host_folder.exists()
    assert not workspace.place.exists()
    wait_for(lambda: not [line for line in processes_of(tmp_path) if "sshd" not in line], PATIENCE, "the last process")


def workspace_keeper(workspace: Far) -> bool:
    """Whether a keeper still runs."""
    found = Process.read(workspace.host_folder / "run" / PROCESS)
    return found is not None and found.lives


def test_a_folder_with_other_files_is_left_alone(sshd: Sshd, tmp_path: Path) -> None:
    host = Host(sshd.name, str(sshd.client_config))
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(HostError, match="has other files"):
        Site.claimed(host, str(tmp_path), "1")
    Site(host, str(tmp_path), "1").remove(keep=False)
    assert (tmp_path / "precious").exists()


def test_what_is_kept_is_taken_up_again_by_anybody(sshd: Sshd, tmp_path: Path) -> None:
    host = Host(sshd.name, str(sshd.client_config))
    site = Site.claimed(host, str(tmp_path / "deployed"), "1")
    for name in ("code", "models", "run", "logs", "activations"):
        (tmp_path / "deployed" / name).mkdir()
    site.remove(keep=True)
    assert {path.name for path in (tmp_path / "deployed").iterdir()} == {"code", "models", MARK}
    assert Site.claimed(host, str(tmp_path / "deployed"), "2").id == "2"


def test_the_lock_is_installed_there_once(sshd: Sshd, tmp_path: Path) -> None:
    site = Site.claimed(Host(sshd.name, str(sshd.client_config)), str(tmp_path / "deployed"), "1")
    site.send_code()
    python, asked = tmp_path / "deployed/code/.venv/bin/python", tmp_path / "asked"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    python.chmod(0o755)
    assert site.install() == str(python)
    first, second = asked.read_text().splitlines()
    assert re.search(r"-m pip install .*-r envs/(cpu|cuda)\.txt$", first)
    assert second.endswith("--no-deps --editable .")
    site.send_code()
    site.install()
    assert len(asked.read_text().splitlines()) == 2
    # The folder is now used by a machine of the other hardware: its packages go elsewhere.
    (installed,) = python.parents[1].glob("installed-c*")
    other = {"installed-cpu": "installed-cuda", "installed-cuda": "installed-cpu"}[installed.name]
    installed.rename(installed.with_name(other))
    beside = tmp_path / f"deployed/code/.venv-{installed.name.removeprefix('installed-')}/bin/python"
    beside.parent.mkdir(parents=True)
    shutil.copy(python, beside)
    assert site.install() == str(beside)
    assert len(asked.read_text().splitlines()) == 4


def test_a_machine_that_cannot_be_reached_is_told(sshd: Sshd, tmp_path: Path) -> None:
    workspace = Far(tmp_path, settings(sshd, tmp_path, tmp_path / "deployed"))
    workspace.config["deploy"]["host"] = "nowhere.invalid"
    workspace.config["model"] = {}
    said = workspace.call("deploy", ok=False)
    assert "nowhere.invalid cannot be reached" in said
    assert "works without asking for anything" in said


def test_a_gpu_that_is_too_small_or_not_there_is_told(sshd: Sshd, tmp_path: Path) -> None:
    if subprocess.run(["which", "nvidia-smi"], capture_output=True).returncode == 0:
        pytest.skip("this machine has GPUs")
    workspace = Far(tmp_path, settings(sshd, tmp_path, tmp_path / "deployed"))
    workspace.config["deploy"]["min_vram"] = 24
    workspace.config["model"] = {}
    assert "has no NVIDIA GPU; deploy.min_vram asks for 24 GB" in workspace.call("deploy", ok=False)
    assert not (tmp_path / "deployed").exists()
