"""A run as the pool sees it, and which runs share a pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from server.pool.protocol import Caller
from server.pool.run import PlanError, Run, address_path

CODE = Path("/code")


def config(name: str = "one", **sections: Any) -> Config:
    return parse_config({"experiment": {"name": name}, **sections})


def path_of(*configs: Config) -> Path:
    return address_path({config.experiment.name: config for config in configs}, CODE)


def test_runs_share_a_pool_where_their_servers_are_the_same() -> None:
    one = path_of(config())
    assert path_of(config("other", dataset={"samples": 99})) == one
    assert path_of(config(), config("two")) == one
    assert path_of(config(workers={"count": 2})) != one
    assert path_of(config(model={"source": "somebody/else"})) != one
    assert path_of(config(generation={"engine": {"max_model_len": 99}})) != one
    two = config("two", model={"source": "somebody/else"})
    assert path_of(config(), two) == path_of(two, config())
    assert address_path({"one": config()}, Path("/other/code")) != one


def test_a_relative_model_belongs_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found.add(path_of(config(model={"source": "./model"})))
    assert len(found) == 2


def test_a_plan_is_read_experiment_by_experiment(tmp_path: Path) -> None:
    run = Run(Caller(str(tmp_path), "/results", "/", 1))
    with pytest.raises(PlanError, match="holds no experiment"):
        run.experiments()
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(config(name).resolved()))
        run = Run(Caller(str(tmp_path), "/results", "/", 1))
        assert run.experiment(name) is run.experiment(name)
        expected = {"one": "/results/one/logs", "two": "/results/logs"}
        assert run.logs == Path(expected[name])
    assert [experiment.config.experiment.name for experiment in run.experiments()] == ["one", "two"]
    with pytest.raises(PlanError, match=r"three\.json cannot be read"):
        run.experiment("three")
