"""An experiment whose answers come from an OpenAI-compatible API, from the dry run to the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emoprobe.results.api_calls import ApiCalls
from tests.conftest import VARIANTS, StubServer
from tests.workspace import Workspace, jobs_in

API = {"backend": "api", "max_tokens": 40}
PRICES = {"stub": {"input": 1.0, "output": 10.0}}


def test_an_api_experiment_from_dry_run_to_report(stub: Callable[..., StubServer], tmp_path: Path) -> None:
    server = stub()
    folder = tmp_path / "run"
    folder.mkdir()
    config: dict[str, Any] = {
        "experiment": {"name": "tiny"},
        "model": {"source": "stub"},
        "dataset": {"samples": 4},
        "variants": VARIANTS,
        "generation": API,
        "capture": {"enabled": False},
        "workers": {"endpoints": [server.url], "prices": PRICES, "max_cost": 0.0000001},
    }
    run = Workspace(folder, config)
    planned = run.run("-n")
    assert "1 API endpoint" in planned
    assert "tiny: cost: at most 0.0" in planned
    assert (
        "480 of completions, as many as allowed); nothing spent so far of workers.max_cost = 1e-07, which may not"
        in planned
    )
    refused = run.run(ok=False)
    assert "workers.max_cost = 1e-07 leaves no room for another call: 0 are spent" in refused
    assert server.requests() == []

    config["workers"]["max_cost"] = 1.0
    run.run()
    assert len(server.requests()) == 12
    assert all("messages" in request and "seed" in request for request in server.requests())
    layout = run.layout
    assert abs(ApiCalls(layout.api_calls).spent - 12 * (3 * 1.0 + 32 * 10.0) / 1e6) < 1e-12
    assert run.json("model.json") == {
        "source": "stub", "path": "stub", "revision": None, "sha256": None, "max_length": None, "resolved": {}
    }  # fmt: skip
    assert run.json("verified.json")["problems"] == []
    notes = {one["about"]: one["text"] for one in run.json("report.json")["statements"]}
    assert "whose weights are not pinned" in notes["data:weights"]
    assert "stub (12 calls)" in notes["data:weights"]
    assert layout.explorer.exists()

    # Prices, budget and endpoints change no answer; a lost trajectory is asked for again, alone.
    config["workers"] = {"endpoints": [server.url, "http://127.0.0.1:9"], "prices": {}, "requests": 2}
    assert run.planned() == {}
    shutil.rmtree(layout.pair("calm", "gsm8k_0002"))
    config["workers"] = {"endpoints": [server.url], "prices": PRICES}
    again = run.run("-n")
    assert jobs_in(again)["generate"] == 1
    assert "0.003876 spent by 12 calls; workers.max_cost sets no limit" in again
    # The fields of the request are part of what is asked.
    config["generation"] = {**API, "api_request": {"reasoning_effort": "low"}}
    assert run.planned()["generate"] == 12
    assert json.loads(layout.model.read_text())["source"] == "stub"
