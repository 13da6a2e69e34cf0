"""An experiment on a model that thinks: from a warning of the dry run to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests import thinking_model
from tests.conftest import StubServer
from tests.workflow.pool import end_pool
from tests.workspace import Workspace


def test_thoughts_are_kept_apart_from_answers(
    workspace: Callable[..., Workspace], stub: Callable[..., StubServer], unweighted: Path, tmp_path: Path
) -> None:
    model = thinking_model.make(unweighted, tmp_path / "thinker", "qwen3")
    server, tokenizer = stub(), str(model / "tokenizer.json")
    thinks = {"kind": "thought", "tokenizer": tokenizer, "times": 999}
    endless = {**thinks, "match": "You keep getting", "says": "<think>\n" + "Answer: 1, or not. " * 40}
    server.set_faults(endless, {**thinks, "says": "<think>\nIs it Answer: 1?\n</think>\n\nAnswer: 2"})
    run = workspace(
        server, model={"source": str(model)}, dataset={"samples": 2}, generation={"max_tokens": 40, "thinking": "off"}
    )
    assert "knows thinking" not in run.run("-n")
    run.config["generation"]["thinking"] = "on"
    assert "generation.max_tokens = 40: the chat template of" in run.run("-n")
    try:
        run.run()
        # Whatever is lost comes back byte for byte.
        before, lost = run.trajectories(), run.layout.pair("calm", "gsm8k_0001") / "trajectory.jsonl"
        lost.unlink()
        run.run()
    finally:
        end_pool(run.config)
    assert run.trajectories() == before
    answer = json.loads(lost.read_text().splitlines()[-1])
    assert answer == {"role": "assistant", "content": "\n\nAnswer: 2", "reasoning_content": "\nIs it Answer: 1?\n"}
    table = pd.read_parquet(run.layout.table("trajectories"))
    assert {name: group["thought_cut_off"].all() for name, group in table.groupby("variant")} == {
        "calm": False, "control": False, "frustration": True,
    }  # fmt: skip
    extracted = {str(name): group["extracted"].fillna("").tolist() for name, group in table.groupby("variant")}
    assert extracted == {"calm": ["2", "2"], "control": ["2", "2"], "frustration": ["", ""]}
    assert (table["thought_tokens"] > 0).all()
    said = [entry["text"] for entry in run.json("report.json")["statements"] if entry["about"] == "data:thoughts"]
    assert said[0].startswith("2 of 6 completions were cut off at max_tokens within a thought")
    assert run.planned() == {}
    # A plan whose thoughts do not exist is refused before anything runs.
    run.config["generation"]["thinking"] = "off"
    run.config["capture"] = {"positions": ["thinking_mean"]}
    assert "capture.positions = 'thinking_mean': is a position of the thought" in run.run("-n", ok=False)
