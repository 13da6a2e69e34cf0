"""The list of activation folders: what it may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoprobe.results import atomic
from emoprobe.results.manifest import Manifest
from emoprobe.results.record import DamagedError

ENTRY = {"save_dir": "activations/calm/sum_0001", "sha256": "0", "bytes": 1}


@pytest.mark.parametrize("name", ["../x", "calm/..", "calm/../../x", "/etc", "calm", "calm/", "./x"])
def test_no_row_leads_out_of_the_experiment(tmp_path: Path, name: str) -> None:
    path = tmp_path / "activations_manifest.json"
    atomic.write_json(path, {"calm/sum_0001": ENTRY})
    assert list(Manifest.read(path).root) == ["calm/sum_0001"]
    atomic.write_json(path, {name: ENTRY})
    with pytest.raises(DamagedError, match="names no variant and sample"):
        Manifest.read(path)
