"""Edits for a server that shares no disk carry what their direction's file holds, to the bit."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoprobe.results.layout import Layout
from emoprobe.steering.grid import SteeringEdit
from emoprobe.steering.requests import ChangedDirectionError, edit_body, with_rows


def test_rows_are_those_of_the_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "exp")
    path = layout.direction("joy")
    path.parent.mkdir(parents=True)
    vectors = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    norms = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    save_file({"direction": vectors, "direction.norm": norms}, path)
    asked = [edit_body(SteeringEdit("joy", "add", "all", layers, 0.5), layout, tmp_path) for layers in ((3,), (4, 1))]
    one, two = with_rows(asked, tmp_path)
    assert base64.b64decode(one["rows"]) == vectors[3].tobytes()
    assert base64.b64decode(two["rows"]) == vectors[[1, 4]].tobytes()
    assert np.array_equal(np.array(two["lengths"], np.float32), norms[[1, 4]])
    assert [{key: edit[key] for key in asked[0]} for edit in (one, two)] == asked
    save_file({"direction": vectors + 1, "direction.norm": norms}, path)
    with pytest.raises(ChangedDirectionError, match="run again"):
        with_rows(asked, tmp_path)
