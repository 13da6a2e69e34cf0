"""A run follows the record of what is deployed for it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config, study_of
from emoprobe.storage.bucket import portable_credentials
from emoprobe.workflow.checks import check_config
from scripts.prepare_model import all_foreign
from server.deploy.deployment import KEY, DeployedModel, DeployedServer, Deployment, followed, model_identity, place_of

DEPLOY = {"backend": "ssh", "host": "gpu"}
MODEL = {"source": "someone/model"}


def config(**sections: Any) -> Config:
    return parse_config({"deploy": DEPLOY, "model": MODEL, **sections})


def deployed(root: Path, *kinds: str, push: str | None = None) -> None:
    """A record of servers of these kinds for `config()`."""
    place = place_of(config().deploy, root)
    servers = [
        DeployedServer(name=f"{kind}-0", kind=kind, port=5000 + number, socket=f"/run/{kind}", hardware="a GPU")
        for number, kind in enumerate(kinds)
    ]
    identity = model_identity(config())
    Deployment(id="1", host="gpu", ssh_config=None, model_identity=identity, servers=servers, push=push).write(place)


def test_a_run_follows(tmp_path: Path) -> None:
    deployed(tmp_path, "vllm", "nnsight")
    workers = followed(config(), tmp_path).workers
    assert workers.endpoints == ["http://127.0.0.1:5000"]
    assert workers.capture_endpoints == ["http://127.0.0.1:5001"]
    assert workers.capture_files == "fetch"
    assert workers.hardware == {"http://127.0.0.1:5000": "a GPU", "http://127.0.0.1:5001": "a GPU"}
    assert workers.api_key_file == str(place_of(config().deploy, tmp_path) / KEY)
    inline = followed(config(generation={"backend": "nnsight"}), tmp_path).workers
    assert (inline.endpoints, inline.capture_endpoints) == ([], ["http://127.0.0.1:5001"])


def test_only_servers_of_this_machine_want_the_weights(tmp_path: Path) -> None:
    deployed(tmp_path, "vllm", "nnsight")
    assert all_foreign(followed(config(), tmp_path))
    assert not all_foreign(config())
    fetched = {"capture_endpoints": ["http://gpu:8001"], "capture_files": "fetch"}
    assert not all_foreign(config(deploy={}, workers=fetched))  # vLLM is started here
    assert all_foreign(config(deploy={}, workers=fetched, generation={"backend": "nnsight"}))


@pytest.mark.parametrize(
    "sections",
    [
        {"deploy": {}},
        {"deploy": {**DEPLOY, "host": "other"}},
        {"model": {"source": "another/model"}},
        {"model": {**MODEL, "dtype": "bfloat16"}},
        {"generation": {"engine": {"max_model_len": 1000}}},
        {"conversation": {"kind": "agent", "tools": ["tests.tools:calculator"], "tool_parser": "hermes"}},
        {"workers": {"endpoints": ["http://mine:8000"]}},
    ],
)
def test_what_is_deployed_for_something_else_is_not_followed(tmp_path: Path, sections: dict[str, Any]) -> None:
    deployed(tmp_path, "vllm", "nnsight")
    own = config(**sections)
    assert followed(own, tmp_path) == own


def test_all_kinds_must_stand(tmp_path: Path) -> None:
    deployed(tmp_path, "vllm")
    assert followed(config(), tmp_path) == config()
    assert followed(config(capture={"enabled": False}), tmp_path).workers.endpoints


BUCKET = {"url": "s3://bucket/x"}


@pytest.mark.parametrize(
    ("sections", "push", "files"),
    [
        ({"storage": BUCKET}, "s3://bucket/x/captured", "push"),
        ({"storage": BUCKET, "workers": {"capture_files": "push"}}, "s3://bucket/x/captured", "push"),
        ({"storage": BUCKET, "workers": {"capture_files": "fetch"}}, "s3://bucket/x/captured", "fetch"),
        ({"storage": {"url": "s3://bucket/other"}}, "s3://bucket/x/captured", "fetch"),
        ({}, "s3://bucket/x/captured", "fetch"),
        ({"storage": BUCKET}, None, "fetch"),
        # Other servers are to stand first.
        ({"storage": BUCKET, "workers": {"capture_files": "push"}}, None, "push"),
    ],
)
def test_activations_come_from_where_the_servers_push_them(
    tmp_path: Path, sections: dict[str, Any], push: str | None, files: str
) -> None:
    deployed(tmp_path, "vllm", "nnsight", push=push)
    workers = followed(config(**sections), tmp_path).workers
    assert workers.capture_files == files
    assert bool(workers.endpoints) is (files == "fetch" or push is not None)


def test_servers_push_to_one_place() -> None:
    def push(**shots: Any) -> str | None:
        return DeployedModel.of(
            study_of({"study": {"name": "s"}, "base": {"deploy": DEPLOY, "model": MODEL}, "experiments": shots})
        ).push

    quiet = {"storage": {"url": "s3://bucket/y"}, "capture": {"enabled": False}}
    fetched = {"storage": {"url": "s3://bucket/y"}, "workers": {"capture_files": "fetch"}}
    assert push(a={}, b={"storage": BUCKET}, c=quiet, d=fetched) == "s3://bucket/x/captured"
    assert push(a={"storage": {"url": "file:///folder"}}) is None  # a folder of this machine
    with pytest.raises(ConfigError, match="push to one place"):
        push(a={"storage": {"url": "s3://bucket/y"}}, b={"storage": BUCKET})


def test_what_a_push_needs_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/a/file/of/this/machine")
    assert portable_credentials("s3://bucket/x")["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in portable_credentials("gs://bucket/x")
    assert portable_credentials("file:///folder") == {}


def test_a_study_that_shares_its_servers_is_deployed_as_one() -> None:
    base = {"deploy": DEPLOY, "model": MODEL}
    study = {"study": {"name": "s"}, "base": base}
    shots: dict[str, Any] = {"a": {}, "b": {"generation": {"max_tokens": 99}, "capture": {"enabled": False}}}
    wanted = DeployedModel.of(study_of({**study, "experiments": shots}))
    assert wanted.kinds == ("vllm", "nnsight")
    models: dict[str, Any] = {"a": {}, "b": {"model": {"source": "another/model"}}}
    with pytest.raises(ConfigError, match="serves one model"):
        DeployedModel.of(study_of({**study, "experiments": models}))
    hosts: dict[str, Any] = {"a": {}, "b": {"deploy": {"host": "other"}}}
    with pytest.raises(ConfigError, match="differs between the experiments"):
        DeployedModel.of(study_of({**study, "experiments": hosts}))
    with pytest.raises(ConfigError, match="nothing is to be deployed"):
        DeployedModel.of(study_of({"model": MODEL}))


def test_a_key_that_others_can_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o644)
    said = check_config(parse_config({"workers": {"api_key_file": str(tmp_path / "key")}}))
    assert any("others may read it" in line for line in said)
    (tmp_path / "key").chmod(0o600)
    assert not check_config(parse_config({"workers": {"api_key_file": str(tmp_path / "key")}}))
    [line] = check_config(parse_config({"workers": {"api_key_file": str(tmp_path / "none")}}))
    assert "No such file" in line
