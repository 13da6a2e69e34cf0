"""The line that a plan begins with."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.files import Study, parse_config
from emoprobe.results.layout import Layout
from emoprobe.workflow.targets import Targets, budget, requests_in_flight

ELSEWHERE = ["http://a:1/v1", "http://b:2/v1"]
INSIDE: dict[str, Any] = {"generation": {"backend": "nnsight"}}


@pytest.mark.parametrize(
    ("sections", "servers"),
    [
        ({}, "1 vLLM server and 1 NNsight server"),
        ({"capture": {"enabled": False}}, "1 vLLM server"),
        ({"workers": {"count": 2}}, "2 vLLM servers and 2 NNsight servers"),
        ({"workers": {"slurm": [{"count": 3}]}}, "3 vLLM servers in SLURM jobs and 3 NNsight servers in SLURM jobs"),
        ({"workers": {"endpoints": ELSEWHERE}}, "2 vLLM server endpoints and 1 NNsight server"),
        ({"workers": {"capture_endpoints": ELSEWHERE}}, "1 vLLM server and 2 NNsight server endpoints"),
        ({"workers": {"capture_endpoints": ELSEWHERE[:1]}, **INSIDE}, "1 NNsight server endpoint"),
    ],
)
def test_servers_that_others_run_are_told_apart(sections: dict[str, Any], servers: str) -> None:
    config = parse_config({"dataset": {"samples": 3}, "variants": {"control": {}}, **sections})
    line = budget(Study(None, {"x": config}), {"x": Targets(config, Layout.of("x"))})
    assert line.startswith("x: 3 trajectories of at most 768 new tokens in all")
    assert line.rpartition("; ")[2] == servers


def test_asks_and_formats_are_counted_and_named() -> None:
    variants = {"control": {}, "filler": {"texts": ["One.", "Two.", "Three."], "asks": 3}, "joy": {"text": "Hooray!"}}
    config = parse_config({"dataset": {"samples": 10}, "variants": variants, "prompt": {"formats": 2}})
    line = budget(Study(None, {"x": config}), {"x": Targets(config, Layout.of("x"))})
    assert line.startswith("x: 70 trajectories of at most")
    # Accuracy alone takes them: what is captured is a question of each tone and reference.
    assert "30 activation folders (filler asked 3 times, 2 formats); " in line


@pytest.mark.parametrize(
    ("workers", "requests"),
    [
        ({}, 64),
        ({"requests": 256}, 256),
        ({"requests": 100, "count": 4}, 400),
        ({"requests": 8, "slurm": [{"count": 3}, {"count": 2}]}, 40),
        ({"requests": 8, "endpoints": ELSEWHERE}, 16),
    ],
)
def test_requests_in_flight_follow_the_servers(workers: dict[str, Any], requests: int) -> None:
    config = parse_config({"capture": {"enabled": False}, "workers": workers})
    assert requests_in_flight(Study(None, {"x": config, "y": parse_config({"workers": {"requests": 1}})})) == requests
