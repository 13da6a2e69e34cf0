"""A run as the pool sees it, and which runs share a pool."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from server.pool.address import PoolAddress
from server.pool.connections import FILES
from server.pool.protocol import Caller
from server.pool.run import PlanError, Run, address_path
from tests.conftest import PATIENCE
from tests.server.pool.house import House
from tests.workspace import ROOT, wait_for

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


def test_a_pool_may_open_more_files_than_the_shell_allows(house: House) -> None:
    """Each request in flight is a connection, and `workers.requests` may be 4,096."""
    house.add("one")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    start = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard})); "
    start += "runpy.run_module('server.pool', run_name='__main__', alter_sys=True)"
    arguments = map(str, (house.address, house.plan, house.results, house.folder, house.owner.pid))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pool = subprocess.Popen([sys.executable, "-c", start, *arguments], env=environment)
    try:
        wait_for(lambda: PoolAddress.read(house.address) is not None, PATIENCE, "the pool")
        assert resource.prlimit(pool.pid, resource.RLIMIT_NOFILE)[0] == min(hard, FILES)
    finally:
        house.owner.kill()
        assert pool.wait(PATIENCE) == 0
