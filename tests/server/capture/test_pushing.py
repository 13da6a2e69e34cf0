"""Folders that a server pushes itself: together, checked, and where the answer says."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.execution.storage import Storage
from emoprobe.results.activation_folder import ActivationError, ActivationFolder, StoredTensors
from emoprobe.results.layout import Layout
from emoprobe.storage.bucket import Bucket, StorageError
from emoprobe.storage.pull import pull_folder
from emoprobe.storage.push import push
from server.capture import activations
from server.capture.activations import Pusher
from tests.emoprobe.storage import folders
from tests.faulty_proxy import Fault, FaultyProxy
from tests.seaweed import BUCKET, SeaweedFS, environment


@pytest.fixture
def proxy(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(seaweed.port)
    for name, value in environment(proxy.port).items():
        monkeypatch.setenv(name, value)
    yield proxy
    proxy.stop()


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


def results(pushed: list[Future[dict[str, Any]]]) -> list[StoredTensors]:
    return [StoredTensors.model_validate(each.result(120)) for each in pushed]


def hash_of(folder: Path) -> str:
    return ActivationFolder.read(folder).metadata.sha256


def test_folders_of_one_moment_share_a_shard(tmp_path: Path, proxy: FaultyProxy, url: str) -> None:
    there, here = Layout(tmp_path / "there" / "tiny"), Layout(tmp_path / "here" / "tiny")
    there.root.mkdir(parents=True)
    pairs = folders.write(there, variants=2, samples=32, d=8)
    pusher = Pusher(url)
    with proxy.counting() as requests:
        places = results([pusher.push(there.activations(*pair)) for pair in pairs])
    assert len({place.uri for place in places}) == 2  # a shard has one variant
    assert sum(requests.values()) <= 0.2 * len(pairs)
    settings = Storage(url=url)
    for pair, place in zip(pairs, places, strict=True):
        pull_folder(here.activations(*pair), place, hash_of(there.activations(*pair)), settings)
        assert ActivationFolder.read(here.activations(*pair)).metadata.stored == place
    named = {name: content for name, content in folders.files(there).items() if "safetensors" in name}
    assert {name: content for name, content in folders.files(here).items() if "safetensors" in name} == named
    # The push of the whole experiment finds them there.
    with proxy.counting() as requests:
        pushed = push(here, pairs, settings)
    assert requests["PUT"] == 2  # the manifest
    assert pushed.folders == len(pairs)
    assert set(json.loads(here.shards.read_text())) == {place.uri for place in places}


def test_folders_of_two_experiments_may_have_the_same_name(tmp_path: Path, proxy: FaultyProxy, url: str) -> None:
    pusher, pushed, paths = Pusher(url), [], []
    for number, name in enumerate(("a", "b")):
        there = Layout(tmp_path / name)
        there.root.mkdir()
        [pair] = folders.write(there, variants=1, samples=1, d=8 + number)
        paths.append(there.activations(*pair))
        pushed.append(pusher.push(paths[-1]))
    for path, place in zip(paths, results(pushed), strict=True):
        taken = tmp_path / "here" / path.parent.name / path.name
        pull_folder(taken, place, hash_of(path), Storage(url=url))
        assert (taken / "activations.safetensors").read_bytes() == (path / "activations.safetensors").read_bytes()


def test_a_store_that_refuses_is_told_at_once(proxy: FaultyProxy, url: str) -> None:
    proxy.faults = [Fault("forbidden", times=1000)]
    with pytest.raises(StorageError, match="renew the credentials"):
        Pusher(url)


def test_what_is_not_as_the_answer_says_is_not_taken(tmp_path: Path, proxy: FaultyProxy, url: str) -> None:
    there = Layout(tmp_path / "there" / "tiny")
    there.root.mkdir(parents=True)
    pairs = folders.write(there, variants=1, samples=2, d=8)
    first, second = results([Pusher(url).push(there.activations(*pair)) for pair in pairs])
    own, other = (hash_of(there.activations(*pair)) for pair in pairs)
    with pytest.raises(StorageError, match="other activations of v0/q_0001"):
        pull_folder(tmp_path / "here" / "v0" / "q_0001", first, other, Storage(url=url))
    with pytest.raises(StorageError, match="does not hold v0/q_0001"):
        pull_folder(tmp_path / "here" / "v0" / "q_0001", second, own, Storage(url=url))
    with pytest.raises(StorageError, match="the shard is missing"):
        pull_folder(
            tmp_path / "here" / "v0" / "q_0001", first.model_copy(update={"uri": f"{first.uri}x"}), own, Storage()
        )
    assert not (tmp_path / "here").exists()


def test_a_request_that_is_given_up_stops_no_later_push(tmp_path: Path) -> None:
    there = Layout(tmp_path / "there" / "tiny")
    there.root.mkdir(parents=True)
    first, second, third = folders.write(there, variants=1, samples=3, d=8)
    pusher = Pusher(f"file://{tmp_path}/bucket")
    given_up, kept = pusher.push(there.activations(*first)), pusher.push(there.activations(*second))
    assert given_up.cancel()
    assert all(place.length for place in results([kept, pusher.push(there.activations(*third))]))


@pytest.mark.parametrize("damage", ["deleted", "other bytes"])
def test_a_folder_that_cannot_be_pushed_fails_its_own_request_only(tmp_path: Path, damage: str) -> None:
    there = Layout(tmp_path / "there" / "tiny")
    there.root.mkdir(parents=True)
    paths = [there.activations(*pair) for pair in folders.write(there, variants=1, samples=8, d=8)]
    lost = paths[2]
    if damage == "deleted":
        shutil.rmtree(lost)
    else:
        (lost / "activations.safetensors").write_bytes(b"other bytes")
    pusher = Pusher(f"file://{tmp_path}/bucket")
    pushed = {path: pusher.push(path) for path in paths}
    with pytest.raises(ActivationError, match=lost.name):
        pushed.pop(lost).result(120)
    assert all(place.length for place in results(list(pushed.values())))


def test_a_push_that_fails_fails_its_request_and_no_later_one(tmp_path: Path, proxy: FaultyProxy, url: str) -> None:
    there = Layout(tmp_path / "there" / "tiny")
    there.root.mkdir(parents=True)
    (pair,) = folders.write(there, variants=1, samples=1, d=8)
    pusher = Pusher(url)
    proxy.faults = [Fault("forbidden", times=1000)]
    with pytest.raises(StorageError, match="renew the credentials"):
        pusher.push(there.activations(*pair)).result(120)
    proxy.faults = []
    (place,) = results([pusher.push(there.activations(*pair))])
    assert place.uri in [Bucket(url).uri(key) for key in Bucket(url).sizes("shards/")]


def test_a_push_that_loses_one_folder_fails_its_batch_and_the_next_is_pushed(
    tmp_path: Path, proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "tiny")
    layout.root.mkdir(parents=True)
    first, second = folders.write(layout, variants=1, samples=2, d=8)
    pusher = Pusher(url)
    with monkeypatch.context() as patched:
        patched.setattr(activations, "push_folders", lambda bucket, wanted: {})
        with pytest.raises(KeyError):
            pusher.push(layout.activations(*first)).result(120)
    assert results([pusher.push(layout.activations(*second))])
