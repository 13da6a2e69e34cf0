"""`make gpu-check` on a CPU with a tiny model, each step of which fails where its promise is broken."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from server.capture import engine
from server.capture.model import Captured, ForwardInput
from tests.gpu import steps
from tests.gpu.__main__ import PARTS, check
from tests.gpu.capture import CaptureCheck
from tests.gpu.generation import GenerationCheck
from tests.gpu.probes import probes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_every_step_on_a_gpu(tmp_path: Path) -> None:
    assert check(steps.Setting(tmp_path, "cuda", tiny=False), PARTS)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> CaptureCheck:
    """The steps with a tiny model on the CPU."""
    return CaptureCheck(steps.Setting(tmp_path_factory.mktemp("gpu"), "cpu", tiny=True))


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The lines that steps have printed since the last call."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_step_with_a_tiny_model_on_a_cpu(
    capture: CaptureCheck, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    assert steps.run("versions", lambda: steps.versions(capture.setting))
    assert all(steps.run(name, step) for name, step in capture.steps)
    printed = {line["step"]: line for line in lines()}
    assert list(printed) == ["versions", *(name for name, _ in capture.steps)]
    assert [name for name, line in printed.items() if "skipped" in line] == ["out of memory, real", "several devices"]
    assert printed["versions"]["packages"]["torch"] == torch.__version__
    assert printed["hooks by hand"]["least_cosine"] > 0.99999
    assert {"budget_256", "budget_512", "budget_1024", "bare_over_served"} <= set(printed["capture speed"])
    assert printed["out of memory, injected"]["passes"] > 12


def test_probes_are_compared_with_those_of_the_cpu(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = steps.Setting(tmp_path, "cpu", tiny=True)
    assert steps.run("probes", lambda: probes(setting))
    # Of the CPU, of the first run, and of two more.
    for areas in ([0.5, 0.5, 0.5, 0.6], [0.5, 0.6, 0.6, 0.6]):
        answers = iter(areas)
        monkeypatch.setattr(
            "tests.gpu.probes.run_probes",
            lambda *_, of=answers, device, **__: SimpleNamespace(probes=[{"auroc": next(of)}], device=device),
        )
        assert not steps.run("probes", lambda: probes(setting))
    good, unlike, other = lines()
    assert good["largest_difference"] == 0
    assert "a second run differs" in unlike["error"]
    assert "areas differ from those of the CPU by up to 0.1" in other["error"]


def test_every_step_with_a_server_on_a_cpu(
    tmp_path: Path, tiny: Callable[[str], Path], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    generation = GenerationCheck(steps.Setting(tmp_path, "cpu", tiny=True, model=tiny("llama"), backend="nnsight"))
    *stages, (last, _) = generation.steps
    assert last == "turns, and one trajectory again"  # as the tests of the workflow do
    try:
        assert all(steps.run(name, step) for name, step in stages)
        generation._alone[0] += "!"
        assert not steps.run("an answer changes", generation.restarted)
    finally:
        generation.close()
    assert not steps.run("there is no server", generation.shuffled)
    *good, changed, without = lines()
    printed = {line["step"]: line for line in good}
    assert list(printed) == [name for name, _ in stages]
    assert printed["alone and shuffled"]["prompts"] == printed["after a restart"]["same"] == 8
    assert printed["throughput"]["in_flight_8"] > 0
    assert printed["SIGKILL"]["processes"] >= 1
    assert "1 answers changed with a restart" in changed["error"]
    assert "the server was not started" in without["error"]


def test_a_step_fails_where_its_promise_is_broken(
    capture: CaptureCheck, lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = capture.served.forward

    def shifted(batch: Sequence[ForwardInput]) -> list[Captured]:
        return [
            Captured({point: values.roll(1, 1) for point, values in each.activations.items()}, each.scores)
            for each in forward(batch)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(capture.served, "forward", shifted)
        assert not steps.run("tokens are mixed up", capture.hooks)
    answers = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(
            Captured, "activations", property(lambda row: {p: v + next(answers) for p, v in row.values.items()})
        )
        assert not steps.run("values change", capture.copies)
    with monkeypatch.context() as patch:
        patch.setattr(capture.served, "steered_rows", lambda _rows: None)
        assert not steps.run("edits are not made", capture.steering)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "is_out_of_memory", lambda _error: False)
        assert not steps.run("batches are not halved", capture.injected)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "is_sticky", lambda _error: True)
        assert not steps.run("the device is given up", capture.injected)
    errors = [line["error"] for line in lines()]
    expected = [
        "cosine to hooks placed by hand",
        "values differ",
        "AssertionError",
        "requests failed, and one",
        "gives the device up",
    ]
    assert all(part in error for part, error in zip(expected, errors, strict=True)), errors
