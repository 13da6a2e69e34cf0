"""Stages that cost a model's time: what they make is what is stored for their version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emoprobe.workflow.triggers import STAGES
from tests.emoprobe.workflow.stage_outputs import OUTPUTS, STORED, Scene
from tests.nnsight_server import NNsightServer


@pytest.fixture(scope="module")
def scene(tiny: Callable[[str], Path], nnsight_server: Callable[[str], NNsightServer]) -> Scene:
    server = nnsight_server("llama")
    return Scene.make(tiny("llama"), server.url, server.root)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_makes_what_is_stored_for_its_version(scene: Scene, stage: str) -> None:
    stored = json.loads(STORED.read_text())[stage]
    known = "and store its new outputs with `python -m tests.emoprobe.workflow.stage_outputs " + stage + "`"
    assert stored["version"] == STAGES[stage], f"the version of stage {stage} was raised: {known}"
    found = json.loads(json.dumps(OUTPUTS[stage](scene)))
    assert _close(found, stored["outputs"]), (
        f"stage {stage} makes other tokens or numbers than before: raise its version in STAGES of "
        f"emoprobe/workflow/triggers.py {known}, or undo the change"
    )


def _close(found: object, stored: object) -> bool:
    """Whether two values are equal, floats but for what rounding makes of other processors' last digits."""
    if isinstance(found, dict) and isinstance(stored, dict):
        return found.keys() == stored.keys() and all(_close(found[key], stored[key]) for key in found)
    if isinstance(found, list) and isinstance(stored, list):
        return len(found) == len(stored) and all(map(_close, found, stored))
    if isinstance(found, float) and isinstance(stored, float):
        return abs(found - stored) <= 0.0021 + 1e-3 * abs(stored)
    return found == stored
