"""Reading what is in the bucket: by ranges, checked, and as if it were here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from emoprobe import load_activations
from emoprobe.config.execution.storage import Storage
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.activations import load_block
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import Manifest, StoredEntry
from emoprobe.storage.bucket import Bucket, StorageError
from emoprobe.storage.pull import pull
from emoprobe.storage.push import push
from emoprobe.storage.remote import check_stored
from tests.emoprobe.storage import folders
from tests.faulty_proxy import Fault, FaultyProxy

LAYER = len(folders.POSITIONS) * folders.D * 2


@pytest.fixture
def url(layout: Layout, settings: Storage, proxy: FaultyProxy) -> str:
    """An experiment in the bucket."""
    push(layout, folders.write(layout), settings)
    return f"{settings.url}/{layout.root.name}"


def received(proxy: FaultyProxy, match: str = "/shards/") -> int:
    return sum(request.received for request in proxy.requests if match in request.path)


def shard_keys(layout: Layout) -> list[str]:
    rows = Manifest.read(layout.manifest).root.values()
    return sorted({row.uri.rpartition("/tiny/")[2] for row in rows if isinstance(row, StoredEntry)})


def test_the_values_are_those_of_the_folders(url: str, layout: Layout) -> None:
    for point in folders.POINTS:
        here = load_activations(layout.root, point, "response_mean")
        there = load_activations(url, point, "response_mean")
        assert np.array_equal(here.values, there.values)
        assert here.index.equals(there.index)
        assert here.layers == there.layers
    some = load_activations(
        url, "resid_post", "last_prompt", variants=["v1"], samples=["q_0002", "q_0005"], layers=[3, 0]
    )
    same = load_activations(
        layout.root, "resid_post", "last_prompt", variants=["v1"], samples=["q_0002", "q_0005"], layers=[3, 0]
    )
    assert np.array_equal(some.values, same.values)


def test_one_hook_point_or_layer_is_read_without_the_rest(url: str, proxy: FaultyProxy) -> None:
    with proxy.counting():
        load_activations(url, "resid_post", "last_prompt")
    heads = 4 * 16_384
    wanted = 12 * folders.LAYERS * LAYER
    assert wanted <= received(proxy) <= wanted + heads
    with proxy.counting() as requests:
        load_activations(url, "resid_post", "last_prompt", layers=[2])
    assert received(proxy) <= 12 * LAYER + heads
    assert requests["GET"] <= 1 + 4 + 12
    with proxy.counting():
        load_activations(url, "resid_post", "last_prompt", variants=["v0"], samples=["q_0001"])
    assert received(proxy) <= folders.LAYERS * LAYER + heads


def test_errors_are_those_of_a_folder(url: str, layout: Layout, settings: Storage) -> None:
    with pytest.raises(ActivationError, match="hook point 'mlp' was not captured"):
        load_activations(url, "mlp", "last_prompt")
    with pytest.raises(ActivationError, match="layers \\[9\\] were not captured"):
        load_activations(url, "resid_post", "last_prompt", layers=[9])
    with pytest.raises(ActivationError, match="position 'first' was not captured"):
        load_activations(url, "resid_post", "first")
    with pytest.raises(ActivationError, match=r"s3://.*/nothing holds no activations"):
        load_activations(f"{settings.url}/nothing", "resid_post", "first")


def test_tensors_that_are_not_here_are_read_there(url: str, layout: Layout, settings: Storage) -> None:
    before = load_activations(layout.root, "resid_pre", "last_prompt")
    pairs = [("v0", "q_0003"), ("v1", "q_0001"), ("v1", "q_0006")]
    block = load_block(layout, pairs, "resid_post", 1, 3, list(folders.POSITIONS))
    # One by hand, which the manifest alone knows of; then all, by a push that keeps nothing here.
    (layout.activations("v1", "q_0001") / "activations.safetensors").unlink()
    for _ in range(2):
        after = load_activations(layout.root, "resid_pre", "last_prompt")
        assert np.array_equal(before.values, after.values)
        found = load_block(layout, pairs, "resid_post", 1, 3, list(folders.POSITIONS))
        assert list(found) == list(block)
        for position, values in block.items():
            assert np.array_equal(values, found[position])
            assert values.dtype == found[position].dtype
        pull(layout, settings)
        everything = sorted(tuple(name.split("/")[:2]) for name in folders.files(layout) if "safetensors" in name)
        push(layout, everything, settings.model_copy(update={"keep_local": False}))  # type: ignore[arg-type]
    assert not [name for name in folders.files(layout) if "safetensors" in name]


def test_tensors_that_are_nowhere(url: str, layout: Layout) -> None:
    path = layout.activations("v1", "q_0001") / "activations.safetensors"
    path.unlink()
    layout.manifest.unlink()
    with pytest.raises(ActivationError, match=r"activations.safetensors is damaged .*delete its folder"):
        load_activations(layout.root, "resid_pre", "last_prompt")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("flip download", times=2, match="/shards/", least=1 << 17),
        Fault("flip download", times=1, match="activations_manifest"),
        Fault("flip download", times=1, match="/shards/"),
        Fault("reset download", times=2, match="/shards/"),
        Fault("unavailable", times=2),
    ],
    ids=lambda fault: f"{fault.kind} {fault.match} {fault.least}",
)
def test_what_is_spoilt_on_the_way_is_read_again(
    url: str, layout: Layout, proxy: FaultyProxy, fault: Fault
) -> None:  # fmt: skip
    expected = load_activations(layout.root, "resid_pre", "response_last")
    proxy.faults = [Fault(**vars(fault))]
    assert np.array_equal(load_activations(url, "resid_pre", "response_last").values, expected.values)
    assert proxy.faults[0].times == 0


def test_a_shard_that_was_changed_or_lost_is_named(url: str, layout: Layout, settings: Storage) -> None:
    entries = Manifest.read(layout.manifest).root
    assert check_stored(layout, entries) == []
    bucket, keys = Bucket(url), shard_keys(layout)
    content = bytearray(bucket.read_whole(keys[0]))
    content[-LAYER // 2] ^= 1
    bucket.write(keys[0], iter([bytes(content)]), len(content), 1)
    bucket.delete(keys[1])
    bucket.write(keys[2], iter([b"short"]), 5, 1)
    problems = "\n".join(check_stored(layout, entries))
    assert f"{keys[0]}: the shard is corrupt, the tensors of " in problems
    assert f"{keys[1]}: the shard is missing" in problems
    assert f"{keys[2]}: the shard is corrupt" in problems
    assert keys[3] not in problems
    with pytest.raises(StorageError, match="corrupt"):
        load_activations(url, "resid_post", "last_prompt", variants=["v0", "v1"])
    shutil.rmtree(layout.root / "activations")
    with pytest.raises(StorageError, match=r"missing|corrupt"):
        pull(layout, settings)


def test_a_pull_fetches_what_is_missing(url: str, layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    before = folders.files(layout)
    for sample in ("q_0002", "q_0003"):
        (layout.activations("v1", sample) / "activations.safetensors").unlink()
    shutil.rmtree(layout.activations("v0", "q_0006"))
    with proxy.counting() as requests:
        pulled = pull(layout, settings)
    assert (pulled.folders, pulled.here) == (3, 9)
    assert folders.files(layout) == before
    assert requests == {"GET": 1 + 4 + 2}
    size = len(before["v1/q_0002/activations.safetensors"])
    assert received(proxy) <= 3 * size + 4 * 16_384


def test_a_pull_leaves_what_was_captured_anew(url: str, layout: Layout, settings: Storage) -> None:
    other = Layout(layout.root.parent / "other" / "tiny")
    other.root.mkdir(parents=True)
    folders.write(other, seed=1)
    shutil.copytree(other.root / "activations", layout.root / "activations", dirs_exist_ok=True)
    assert pull(layout, settings).folders == 0
    assert folders.files(layout) == folders.files(other)


def test_a_pull_of_nothing(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    with pytest.raises(StorageError, match="has no activations; push them there first"):
        pull(layout, settings)


def test_expired_credentials_are_no_missing_files(
    url: str, proxy: FaultyProxy, tmp_path: Path, settings: Storage
) -> None:
    proxy.faults = [Fault("forbidden", times=1000)]
    for attempt in (
        lambda: load_activations(url, "resid_pre", "last_prompt"),
        lambda: pull(Layout(tmp_path / "tiny"), settings),
    ):
        with pytest.raises(StorageError, match=r"ExpiredToken.*renew the credentials"):
            attempt()
