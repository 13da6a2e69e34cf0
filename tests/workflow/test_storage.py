"""Activations that the workflow pushes to a real object store, and what it then plans, makes again, and does not."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoprobe import load_activations
from tests.conftest import VARIANTS, StubServer
from tests.emoprobe.storage import folders
from tests.faulty_proxy import Fault, FaultyProxy
from tests.nnsight_server import NNsightServer
from tests.seaweed import BUCKET, SeaweedFS, environment
from tests.workspace import Workspace

PUSH, PULL = {"push_activations": 1}, {"pull_activations": 1}
MADE = ("generate", "capture")


@pytest.fixture(scope="module")
def proxy(seaweed: SeaweedFS) -> Iterator[FaultyProxy]:
    """A proxy before the store, which credentials in the environment lead to."""
    proxy = FaultyProxy(seaweed.port)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(proxy.port).items():
            patch.setenv(name, value)
        yield proxy
    proxy.stop()


@pytest.fixture(scope="module")
def finished(
    smollm2: Path, tmp_path_factory: pytest.TempPathFactory, proxy: FaultyProxy
) -> Iterator[Workspace]:  # fmt: skip
    """An experiment that pushes its activations, run to its end.

    A stub answers, and the activations are random numbers: what becomes of them is the same, and no server is started.
    """
    server = StubServer()
    config: dict[str, Any] = {
        "experiment": {"name": "kept"},
        "model": {"source": str(smollm2)},
        "dataset": {"samples": 3},
        "variants": VARIANTS,
        "generation": {"max_tokens": 8},
        "workers": {"endpoints": [server.url], "capture_endpoints": [server.url], "model_name": "stub"},
        "capture": {"enabled": True},
        "storage": {"url": f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", "attempts": 3},
    }
    workspace = Workspace(tmp_path_factory.mktemp("stored"), config)
    workspace.run("--until", "tabulate_trajectories")
    generator = np.random.default_rng(0)
    for variant in VARIANTS:
        for sample in ("gsm8k_0001", "gsm8k_0002", "gsm8k_0003"):
            state = workspace.json(variant, sample, "agent_state.json")
            content, metadata = folders.folder_files(generator, 32, f"{variant}-{sample}")
            metadata["token_ids"] = state["prompt_token_ids"] + state["completion_token_ids"]
            folder = workspace.layout.activations(variant, sample)
            folder.mkdir(parents=True)
            (folder / "activations.safetensors").write_bytes(content)
            (folder / "metadata.json").write_text(json.dumps(metadata))
    workspace.run()
    yield workspace
    server.stop()


def changed(workspace: Workspace, folder: Path, **storage: Any) -> Workspace:
    """A copy of an experiment with other settings of the storage."""
    config = copy.deepcopy(workspace.config)
    config["storage"].update(storage)
    shutil.copytree(workspace.folder, folder)
    return Workspace(folder, config)


def tensors(workspace: Workspace) -> dict[str, bytes]:
    root = workspace.layout.root / "activations"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}


def test_a_run_pushes_what_it_captures(finished: Workspace, proxy: FaultyProxy) -> None:
    url = f"{finished.config['storage']['url']}/kept"
    assert len(tensors(finished)) == 9
    for row in finished.json("activations_manifest.json").values():
        assert row["uri"].startswith(f"{url}/shards/")
        assert row["length"] == row["bytes"]
    for point in folders.POINTS:
        here = load_activations(finished.layout.root, point, "last_prompt")
        assert np.array_equal(load_activations(url, point, "last_prompt").values, here.values)
    with proxy.counting() as requests:
        assert finished.planned() == {}
        finished.run()
    assert not requests


def test_settings_of_the_storage_plan_a_push_at_most(finished: Workspace) -> None:
    def planned(**storage: Any) -> dict[str, int]:
        config = {**finished.config, "storage": {**finished.config["storage"], **storage}}
        return Workspace(finished.folder, config).planned()

    assert planned(concurrency=3, part_mib=5, attempts=2, timeout=9.0, shard_samples=1) == {}
    assert planned(url="s3://elsewhere/x") == PUSH
    assert planned(keep_local=False) == PUSH
    assert planned(url=None) == {}


def test_what_is_not_kept_here_is_never_made_again(
    finished: Workspace, tmp_path: Path, proxy: FaultyProxy
) -> None:  # fmt: skip
    workspace = changed(finished, tmp_path / "copy", keep_local=False)
    before = tensors(workspace)
    workspace.run()
    assert tensors(workspace) == {}
    assert workspace.planned() == {}
    assert workspace.json("activations", "calm", "gsm8k_0001", "metadata.json")["stored"]["uri"].startswith("s3://")
    # What is computed from the tensors reads them where they are.
    table = (workspace.layout.table("probes")).read_bytes()
    (workspace.layout.table("probes")).unlink()
    workspace.run()
    assert (workspace.layout.table("probes")).read_bytes() == table
    # A new sample is captured, and nothing else.
    workspace.config["dataset"]["samples"] = 4
    planned = workspace.planned()
    assert planned["capture"] == len(VARIANTS)
    assert planned["push_activations"] == 1
    workspace.config["dataset"]["samples"] = 3
    # To have them here again they are pulled, whether or not the store answers at that moment.
    workspace.config["storage"]["keep_local"] = True
    assert workspace.planned() == {**PULL, **PUSH}
    proxy.faults = [Fault("forbidden", times=1000)]
    output = workspace.run("--retries", "0", ok=False)
    assert "renew the credentials" in output
    assert workspace.planned() == {**PULL, **PUSH}
    proxy.faults = []
    workspace.run()
    assert tensors(workspace) == before
    assert workspace.planned() == {}


def test_a_store_that_fails_costs_no_result(finished: Workspace, tmp_path: Path, proxy: FaultyProxy) -> None:
    workspace = changed(finished, tmp_path / "copy", url=f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", keep_local=False)
    before = tensors(workspace)
    for kind in ("unavailable", "forbidden", "reset upload"):
        proxy.faults = [Fault(kind, times=1000)]  # type: ignore[arg-type]
        workspace.run("--retries", "1", ok=False)
        assert tensors(workspace) == before
        assert not set(MADE) & workspace.planned().keys()
    proxy.faults = []
    assert workspace.planned() == PUSH


def test_verify_names_a_shard_that_is_missing_or_corrupt(
    finished: Workspace, tmp_path: Path, seaweed: SeaweedFS
) -> None:  # fmt: skip
    from emoprobe.storage.bucket import Bucket

    workspace = changed(finished, tmp_path / "copy", url=f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", keep_local=False)
    workspace.run()
    bucket = Bucket(f"{workspace.config['storage']['url']}/kept")
    first, second, *_ = sorted(bucket.sizes("shards/"))
    content = bucket.read_whole(first)
    bucket.write(first, iter([content[:-1] + b"x"]), len(content), 1)
    bucket.delete(second)
    output = workspace.run("--forcerun", "verify", "--retries", "0", ok=False)
    assert f"{first}: the shard is corrupt" in output
    assert f"{second}: the shard is missing" in output


def test_what_a_person_removed_is_pulled(finished: Workspace, tmp_path: Path) -> None:
    workspace = changed(finished, tmp_path / "copy")
    before = tensors(workspace)
    (workspace.layout.activations("calm", "gsm8k_0002") / "activations.safetensors").unlink()
    assert workspace.planned() == PULL
    workspace.run()
    assert tensors(workspace) == before
    # Without its metadata nothing says that the bucket has it, and it is captured once more.
    shutil.rmtree(workspace.layout.activations("calm", "gsm8k_0002"))
    assert workspace.planned()["capture"] == 1


def test_a_server_on_another_host_pushes_what_it_captures(
    proxy: FaultyProxy, tiny: Callable[[str], Path], tmp_path: Path
) -> None:  # fmt: skip
    url = f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
    server = NNsightServer(tiny("llama"), tmp_path / "its-own-disk", "--push", f"{url}/captured")
    config: dict[str, Any] = {
        "experiment": {"name": "remote"},
        "model": {"source": str(tiny("llama"))},
        "dataset": {"samples": 2},
        "variants": VARIANTS,
        "generation": {"backend": "nnsight", "max_tokens": 8},
        "workers": {"capture_endpoints": [server.url], "model_name": "tiny", "capture_files": "push"},
        "capture": {"dtype": "float32"},
        "storage": {"url": url},
    }
    (tmp_path / "run").mkdir()
    workspace = Workspace(tmp_path / "run", config)
    try:
        workspace.run("--until", "push_activations")
    finally:
        server.stop()
    rows = workspace.json("activations_manifest.json").values()
    assert {row["uri"].rpartition("/shards/")[0] for row in rows} == {f"{url}/captured"}
    said = {
        f"{path.parent.relative_to(workspace.layout.root)}": json.loads(path.read_text())["response"]["ndif"]["sha256"]
        for path in workspace.layout.root.glob("*/*/agent_state.json")
    }
    came = {str(Path(path).parent): hashlib.sha256(text).hexdigest() for path, text in tensors(workspace).items()}
    assert len(came) == 2 * len(VARIANTS)
    assert came == said
    assert not list((tmp_path / "its-own-disk").rglob("*.safetensors"))
    for point in ("input_layernorm.output", "post_attention_layernorm.output"):
        here = load_activations(workspace.layout.root, point, "last_prompt")
        assert np.array_equal(load_activations(f"{url}/remote", point, "last_prompt").values, here.values)
