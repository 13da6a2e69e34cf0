"""What a push sends, in what order, what it costs, and what it leaves where it fails."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.execution.storage import Storage
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import Manifest, StoredEntry
from emoprobe.storage.bucket import Bucket, StorageError
from emoprobe.storage.pull import pull
from emoprobe.storage.push import push
from emoprobe.storage.remote import MANIFEST, read_manifest
from tests.emoprobe.storage import folders
from tests.faulty_proxy import Fault, FaultyProxy


def bucket(layout: Layout, settings: Storage) -> Bucket:
    return Bucket(f"{settings.url}/{layout.root.name}", settings)


def shards(layout: Layout, settings: Storage) -> list[str]:
    return sorted(bucket(layout, settings).sizes("shards/"))


def test_every_file_lies_unchanged_where_its_row_says(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    before, dated = folders.files(layout), folders.dates(layout.root)
    push(layout, pairs, settings)
    assert folders.files(layout) == before
    assert folders.dates(layout.root) == dated
    rows = Manifest.read(layout.manifest).root
    assert read_manifest(bucket(layout, settings)) == rows
    for name, row in rows.items():
        assert isinstance(row, StoredEntry)
        found = bucket(layout, settings)
        content = found.read(row.uri.removeprefix(f"{found.url}/"), row.offset, row.offset + row.length)
        assert content == before[f"{name}/activations.safetensors"]
        assert hashlib.sha256(content).hexdigest() == row.sha256
    # Two variants of six samples, at least four and a megabyte in a shard, and each is named after its content.
    assert len({row.uri for row in rows.values()}) == 4  # type: ignore[union-attr]
    for key in shards(layout, settings):
        assert hashlib.sha256(bucket(layout, settings).read_whole(key)).hexdigest() in key


def test_small_folders_share_a_shard(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout, variants=3, samples=40, d=8)
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert len(shards(layout, settings)) == 3  # 40 samples do not come to a megabyte
    assert requests["PUT"] == 3 + 2  # the manifest is sent and put in its place
    assert sum(requests.values()) <= 0.2 * len(pairs)


def test_many_requests_are_in_flight(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout, variants=16, samples=1, d=8)
    proxy.seconds = 0.2
    proxy.faults = [Fault("slow", times=1000)]
    push(layout, pairs, settings)
    assert proxy.most_in_flight >= 16


def test_a_second_push_sends_nothing(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    push(layout, pairs, settings)
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert requests == {"GET": 1 + 4}  # the manifest and the head of each shard


def test_a_second_push_sends_what_is_new(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    push(layout, pairs[:6], settings)
    before = shards(layout, settings)
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert requests["PUT"] == 2 + 2
    assert set(before) < set(shards(layout, settings))
    assert len(read_manifest(bucket(layout, settings))) == len(pairs)


def test_a_folder_captured_anew_goes_alone(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    push(layout, pairs, settings)
    other = Layout(layout.root.parent / "other" / layout.root.name)
    other.root.mkdir(parents=True)
    folders.write(other, seed=1)
    shutil.copytree(other.activations("v0", "q_0002"), layout.activations("v0", "q_0002"), dirs_exist_ok=True)
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert requests["PUT"] == 1 + 2
    layout.activations("v0", "q_0002").joinpath("activations.safetensors").unlink()
    pull(layout, settings)
    assert (
        folders.files(layout)["v0/q_0002/activations.safetensors"]
        == folders.files(other)["v0/q_0002/activations.safetensors"]
    )


def test_what_another_machine_pushed_stays(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    push(layout, pairs, settings)
    elsewhere = Layout(layout.root.parent / "elsewhere" / layout.root.name)
    elsewhere.root.mkdir(parents=True)
    more = folders.write(elsewhere, variants=3, seed=0)[-6:]
    push(elsewhere, more, settings)
    assert len(read_manifest(bucket(layout, settings))) == len(pairs) + len(more)


def test_tensors_are_deleted_after_the_check_alone(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    before, dated = folders.files(layout), folders.dates(layout.root)
    settings = settings.model_copy(update={"keep_local": False})
    proxy.faults = [Fault("flip upload", times=100, least=1 << 20)]
    with pytest.raises(StorageError, match="holds other bytes than were sent"):
        push(layout, pairs, settings)
    assert folders.files(layout) == before
    assert read_manifest(bucket(layout, settings)) == {}
    proxy.faults = []
    push(layout, pairs, settings)
    assert {Path(name).name for name in folders.files(layout)} == {"metadata.json"}
    assert folders.dates(layout.root) == dated
    metadata = json.loads((layout.activations("v1", "q_0003") / "metadata.json").read_text())
    assert metadata["stored"]["uri"].startswith(f"{settings.url}/tiny/shards/")
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert requests == {"GET": 1 + 4}


FAULTS: list[list[Fault]] = [
    [Fault("unavailable", times=2)],
    [Fault("unavailable", times=2, method="PUT")],
    [Fault("slow", times=2)],
    [Fault("reset upload", times=2)],
    [Fault("reset download", times=2, least=1 << 16)],
    [Fault("flip upload", times=1, match="/shards/")],
    [Fault("flip upload", times=1, match="/manifests/")],
    [Fault("flip download", times=2, match="/shards/")],
    [Fault("flip download", times=1, match="/manifests/")],
    [Fault("flip download", times=1, match=MANIFEST)],
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: f"{faults[0].kind} {faults[0].match or faults[0].method}")
def test_what_passes_is_tried_again(
    layout: Layout, settings: Storage, proxy: FaultyProxy, faults: list[Fault]
) -> None:  # fmt: skip
    pairs = folders.write(layout)
    push(layout, pairs[:3], settings)
    proxy.seconds, proxy.faults = 2.0, [Fault(**vars(fault)) for fault in faults]
    push(layout, pairs, settings.model_copy(update={"timeout": 1.0}))
    assert all(fault.times == 0 for fault in proxy.faults)
    fresh = Layout(layout.root.parent / "fresh" / layout.root.name)
    pull(fresh, settings)
    assert folders.files(fresh) == folders.files(layout)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unavailable", "could not .* in 3 attempts .*503"),
        ("forbidden", "may not .*ExpiredToken.*renew the credentials in the environment"),
        ("reset upload", "could not write in 3 attempts"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_stays_is_a_clear_error(
    layout: Layout, settings: Storage, proxy: FaultyProxy, kind: Any, said: str, method: str
) -> None:  # fmt: skip
    if (kind, method) == ("reset upload", "GET"):
        method = ""
    pairs = folders.write(layout)
    push(layout, pairs[:6], settings)
    before, local, manifest = (
        read_manifest(bucket(layout, settings)),
        folders.files(layout),
        layout.manifest.read_bytes(),
    )
    proxy.faults = [Fault(kind, times=1000, method=method)]
    with pytest.raises(StorageError, match=said) as error:
        push(layout, pairs, settings.model_copy(update={"keep_local": False}))
    assert "a-secret-for-tests" not in str(error.value)
    proxy.faults = []
    assert read_manifest(bucket(layout, settings)) == before
    assert (folders.files(layout), layout.manifest.read_bytes()) == (local, manifest)


def test_a_push_that_was_broken_off_is_gone_on_with(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    proxy.faults = [Fault("forbidden", times=1000, match="/manifests/")]
    with pytest.raises(StorageError):
        push(layout, pairs, settings)
    assert read_manifest(bucket(layout, settings)) == {}
    assert not layout.pushed.exists()
    proxy.faults = []
    with proxy.counting() as requests:
        push(layout, pairs, settings)
    assert requests["PUT"] == 2  # every shard is there already: only the manifest goes
    assert not [each for each in proxy.requests if "/shards/" in each.path and each.method in ("PUT", "POST")]


def test_a_damaged_folder_is_not_pushed(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    path = layout.activations("v1", "q_0002") / "activations.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ActivationError, match=r"v1/q_0002/activations.safetensors: hash or size"):
        push(layout, pairs, settings)
    path.unlink()
    with pytest.raises(ActivationError, match=r"v1/q_0002/activations.safetensors: is lost"):
        push(layout, pairs, settings)
    assert read_manifest(bucket(layout, settings)) == {}


def test_a_shard_that_was_lost_or_spoilt_is_sent_again(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout)
    push(layout, pairs, settings)
    own, keys = bucket(layout, settings), shards(layout, settings)
    content = own.read_whole(keys[0])
    own.write(keys[0], iter([content[:-9] + b"x" + content[-8:]]), len(content), 1)
    own.delete(keys[1])
    push(layout, pairs, settings)
    assert shards(layout, settings) == keys
    assert own.read_whole(keys[0]) == content


def test_a_bucket_that_is_missing(layout: Layout, settings: Storage, proxy: FaultyProxy) -> None:
    pairs = folders.write(layout, 1, 1)
    with pytest.raises(StorageError, match="there is no such bucket"):
        push(layout, pairs, settings.model_copy(update={"url": "s3://no-such-bucket/x"}))


def test_wrong_credentials(
    layout: Layout, settings: Storage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    pairs = folders.write(layout, 1, 1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-one")
    with pytest.raises(StorageError, match="renew the credentials") as error:
        push(layout, pairs, settings)
    assert "another-one" not in str(error.value)


def test_a_folder_of_this_machine_as_store(layout: Layout, settings: Storage, tmp_path: Path) -> None:
    pairs = folders.write(layout)
    settings = settings.model_copy(update={"url": f"file://{tmp_path}/store", "keep_local": False})
    before = folders.files(layout)
    push(layout, pairs, settings)
    push(layout, pairs, settings)
    pull(layout, settings)
    after = folders.files(layout)
    assert {name: after[name] for name in after if "safetensors" in name} == {
        name: before[name] for name in before if "safetensors" in name
    }
