"""Copies of activations to the CPU: none on a CPU; pinned, asynchronous and awaited before use from a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from server.capture.activations import ActivationWriter, CaptureRequest, Captures
from server.capture.copies import HostCopies
from server.capture.engine import BatchEngine
from server.capture.errors import ForwardError
from server.capture.model import Captured, ForwardInput, ServedModel
from tests.server.capture import tiny_models

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A tiny model on the CPU."""
    folder = tiny_models.make_of_family("llama", tmp_path_factory.mktemp("copies"))
    return ServedModel(str(folder), "tiny", "float32", "cpu")


class FakeGPU:
    """Streams and events of one GPU: a copy is done when its event is awaited, not when it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.pinned = 0
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._inside = False
        empty, copy = torch.empty, torch.Tensor.copy_

        def pinnable(*shape: Any, pin_memory: bool = False, **rest: Any) -> torch.Tensor:
            self.pinned += pin_memory
            return empty(*shape, **rest).fill_(float("nan")) if pin_memory else empty(*shape, **rest)

        def later(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
            if not non_blocking:
                return copy(target, source)
            assert self._inside, "the copy runs on the stream that computes"
            self.log.append("copy")
            self._copies.append((target, source))
            return target

        def synchronize() -> None:
            self.log.append("synchronize")
            with torch.inference_mode():
                while self._copies:
                    copy(*self._copies.pop())

        @contextlib.contextmanager
        def on(stream: Any) -> Iterator[None]:
            assert stream is self.stream
            self._inside = True
            yield
            self._inside = False

        event = SimpleNamespace(synchronize=synchronize)
        self.stream: Any = SimpleNamespace(
            wait_stream=lambda _stream: self.log.append("wait"), record_event=lambda: event
        )
        monkeypatch.setattr(torch, "empty", pinnable)
        monkeypatch.setattr(torch.Tensor, "copy_", later)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: self.log.append("keep"), raising=False)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: "computing")
        monkeypatch.setattr(torch.cuda, "stream", on)


def _inputs(model: ServedModel, *, tokens: bool = False) -> list[ForwardInput]:
    layers = list(range(model.architecture.n_layers))
    points = ["resid_post", "mlp.output"]
    sequences = [[3, 4, 5, 6], [5, 6, 7], [8, 9]]
    dtypes = [torch.float16, torch.float16, torch.float32]
    return [
        ForwardInput(ids, layers, points, None if tokens else [(0, 2), (1, len(ids))][: len(ids) - 1], dtype)
        for ids, dtype in zip(sequences, dtypes, strict=True)
    ]


@pytest.mark.parametrize("tokens", [False, True])
def test_copies_from_a_gpu_are_awaited_before_they_are_read(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch, tokens: bool
) -> None:
    expected = [each.activations for each in served.forward(_inputs(served, tokens=tokens))]
    gpu = FakeGPU(monkeypatch)
    monkeypatch.setattr(served, "_copies", HostCopies({CPU: gpu.stream}))
    captured = served.forward(_inputs(served, tokens=tokens))
    copies = gpu.log.count("copy")
    assert copies == gpu.pinned == (2 * 3 if tokens else 2 * 2)  # a hook point at a time, by sequence or by type
    assert gpu.log == ["wait", "copy", "keep"] * copies, "the pass waits for its copies"
    for each, values in zip(captured, expected, strict=True):
        for point, value in each.activations.items():
            assert value.dtype == values[point].dtype
            assert torch.equal(value, values[point])
    assert gpu.log.count("synchronize") == len(captured)


def test_on_a_cpu_nothing_is_pinned_or_awaited(served: ServedModel) -> None:
    assert HostCopies.of(served.devices).started() == []
    assert all(not each.copying for each in served.forward(_inputs(served)))


def test_an_error_of_a_gpu_that_shows_in_a_copy_gives_the_device_up(served: ServedModel, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = BatchEngine(served, batch_tokens=100, memory=1000)
    try:
        captures = Captures(served, engine, ActivationWriter(tmp_path))
        request = CaptureRequest(tmp_path / "a", False, "r", [0], ["resid_post"], "all", "float32")
        event: Any = SimpleNamespace(synchronize=fail)
        passed: Future[Captured] = Future()
        passed.set_result(Captured({"resid_post": torch.ones(1, 1, 2)}, None, copying=[event]))
        stored: Future[Any] = Future()
        engine._held = 10
        captures._store(request, {}, passed, stored, 10)
        assert isinstance(stored.exception(), ForwardError)
        assert "illegal memory access" in (engine.failure or "")
        assert engine.load["held_bytes"] == 0
        assert not (tmp_path / "a").exists()
    finally:
        engine.close()
