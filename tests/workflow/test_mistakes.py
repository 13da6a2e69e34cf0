"""A dry run of a configuration with a mistake in it: what is wrong in a line each, and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workspace import Workspace

ROWS = '{"question": "1 + 1?", "answer": 2}\n' * 3


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"generation": {"max_tokens": "many"}}, "generation.max_tokens = 'many': "),
        ({"generation": {"max_token": 3}}, "generation.max_token: unknown key; did you mean 'max_tokens'?"),
        ({"dataset": {"source": "nowhere.jsonl"}}, "dataset.source = 'nowhere.jsonl': "),
        ({"dataset": {"source": "rows.jsonl", "question": "problem"}}, "no column 'problem'"),
        ({"dataset": {"source": "rows.jsonl", "samples": 4}}, "has only 3 rows"),
        ({"variants": {"control": {}, "odd": {"transform": "no_such_module:change"}}}, "variants.odd.transform"),
        ({"capture": {"enabled": True, "layers": [0, 3]}}, "has 3 layers, 0 to 2"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    workspace: Callable[..., Workspace], tiny: Callable[[str], Path], sections: dict[str, Any], line: str
) -> None:
    run = workspace(model={"source": str(tiny("llama"))})
    run.config["generation"] = {**run.config.get("generation", {}), "engine": {"max_model_len": None}}
    (run.folder / "rows.jsonl").write_text(ROWS)
    run.config |= {name: {**run.config.get(name, {}), **values} for name, values in sections.items()}
    done = run.finish("-n")
    said = done.stderr.splitlines()
    assert done.returncode == 1
    start = said.index("The configuration cannot be used:")
    assert len(said) == start + 2, said
    assert line in said[-1]
    assert not re.search(r"Traceback|SystemExit|WorkflowError|\.smk|, line \d", done.stdout + done.stderr)


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_runs(
    workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    run = workspace()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    done = Workspace(folder, run.config, copied=False).finish("-n")
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len(said) == said.index("The configuration cannot be used:") + 2, said
    assert r"caf\xe9': the path is not UTF-8; rename the folder" in said[-1]
