"""A working directory whose path has every character that shells, Snakemake, globs and URLs give a meaning to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import VARIANTS
from tests.copies.copy import has_template
from tests.workflow.pool import end_pool
from tests.workspace import Workspace

ODD = [".odd", "My project (2)", "a[1]*?", 'O\'Neil & "Co"', "#7; 10:30", "{x} {variant}", "$HOME ~ %2e", "größe"]


def test_a_run_from_start_to_report_in_an_odd_directory(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """The model, the data, the results and everything between them lie below such a path; captures are made there."""
    folder = tmp_path.joinpath(*ODD)
    folder.mkdir(parents=True)
    shutil.copytree(tiny("llama"), folder / "model")
    rows = "".join(f'{{"question": "What is {number} + 1?", "answer": "{number + 1}"}}\n' for number in range(3))
    (folder / "mine.jsonl").write_text(rows)
    config: dict[str, Any] = {
        "experiment": {"name": "odd"},
        "model": {"source": "./model"},
        "dataset": {"source": "./mine.jsonl", "samples": 2},
        "variants": {name: VARIANTS[name] for name in ("control", "calm")},
        "generation": {"backend": "nnsight", "max_tokens": 8},
        "capture": {"dtype": "float32"},
    }
    workspace = Workspace(folder, config, copied=False)
    try:
        workspace.run()
        assert len(workspace.trajectories()) == 4
        assert workspace.json("verified.json") == {"checked": 4, "unhashed": 0, "problems": []}
        assert (workspace.layout.root / "report.html").is_file() or (workspace.layout.root / "index.html").is_file()
        assert workspace.planned() == {}
        # Captures by replay, each a job of a rule of its own; the shell is not asked for more than before.
        workspace.copied = has_template()
        workspace.config["generation"] |= {"backend": "vllm", "engine": {"max_model_len": None}}  # the tiny model's
        shutil.rmtree(workspace.layout.root / "activations")
        workspace.run("--touch", "--until", "prepare_model", "prepare_sample", "generate")
        workspace.run("--rerun-triggers", "mtime", "--until", "capture", "verify")
        assert workspace.json("verified.json") == {"checked": 4, "unhashed": 0, "problems": []}
    finally:
        end_pool(config)
