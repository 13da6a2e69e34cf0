"""Probes on another device than the CPU, which a mode of PyTorch stands for.

Tensors of that device are held by the CPU as a class of their own. As on a GPU, operations refuse to mix them with
tensors of the CPU, except numbers and indices, and they become arrays only when that is forced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from emoprobe.analysis.probes import all_probes
from emoprobe.analysis.probes.all_probes import CPU, run_probes
from emoprobe.analysis.probes.position import Probed, ProbedPosition, positions_of, probe_position
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.config.experiment import Config
from tests.emoprobe.analysis import synthetic

GPU = torch.device("cuda")


class OnGpu(torch.Tensor):
    """A tensor that stands for one of a GPU."""

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """As of a tensor of a GPU."""
        return True


class FakeGpu(TorchFunctionMode):
    """Keeps the tensors of a GPU apart from those of the CPU, and counts the operations there."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        made_there = named.get("device") == GPU
        if made_there:
            named["device"] = "cpu"
        if name == "to" and len(args) > 1 and isinstance(args[1], torch.device):
            return args[0].clone().as_subclass(OnGpu if args[1] == GPU else torch.Tensor)
        if name in ("cpu", "numpy"):
            if name == "numpy" and isinstance(args[0], OnGpu) and not named.get("force"):
                raise TypeError("can't convert cuda device type tensor to numpy")
            here = args[0].as_subclass(torch.Tensor)
            return here.numpy(**named) if name == "numpy" else here
        if name == "__array__" and isinstance(args[0], OnGpu):
            raise TypeError("can't convert cuda device type tensor to numpy")
        if name in ("__getitem__", "__setitem__"):
            if not isinstance(args[0], OnGpu) and any(isinstance(each, OnGpu) for each in _tensors([args[1]])):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor")
            operands = [*_tensors(args[:1]), *_tensors(args[2:])]
        else:
            operands = [*_tensors(args), *_tensors(named.values())]
        homes = {type(each) for each in operands if each.dim()}
        if len(homes) > 1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        self.operations += OnGpu in homes
        result = func(*args, **named)
        return result.as_subclass(OnGpu) if made_there else result


def _tensors(values: Any) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@pytest.fixture(scope="module", params=[(16, "more rows than features"), (700, "more features than rows")], ids=str)
def problem(request: pytest.FixtureRequest) -> tuple[torch.Tensor, ProbedPosition, Config]:
    """Activations at a response position, where every target is probed."""
    config = synthetic.config(synthetic.BALANCED, permutations=19, control_tasks=10)
    table = synthetic.table(config, 40, 0)
    table["completion"] = [f"the answer is {number % 7}" for number in range(len(table))]
    source = synthetic.source(table, 2, request.param[0], 0)
    texts = [
        None if variant == "control" else f"{variant} {number % 2}" for number, variant in enumerate(table["variant"])
    ]
    position = positions_of(table, texts, RowCodes.of(table, config), source.empty, config.probes)[1]
    block = source.load(0, 2, source.hook_points[0])[position.name]
    return torch.from_numpy(block.swapaxes(0, 1).astype(np.float32)), position, config


def _everything(probed: Probed) -> dict[str, Any]:
    """Each array of the results by its name."""
    flat: dict[str, Any] = {}
    for name, value in vars(probed).items():
        if is_dataclass(value):
            flat |= {f"{name}.{field}": each for field, each in vars(value).items() if each is not None}
        elif name in ("weights", "directions"):
            flat |= {f"{name}.{target}": each if name == "weights" else each[1] for target, each in value.items()}
    return flat


def test_a_gpu_computes_the_same(problem: tuple[torch.Tensor, ProbedPosition, Config]) -> None:
    """Each result is that of the CPU; all but weights that nobody reads afterwards lie there."""
    features, position, config = problem
    targets = config.probes.targets
    here = probe_position(features, position, config.probes, targets, True, CPU)
    with FakeGpu() as gpu:
        there = probe_position(features, position, config.probes, targets, True, GPU)
    assert gpu.operations > 1000
    for ours, theirs in zip(there.transfer, here.transfer, strict=True):
        assert [row | {"auroc": pytest.approx(row["auroc"], abs=1e-3)} for row in theirs] == ours
    expected, found = _everything(here), _everything(there)
    assert expected.keys() == found.keys() >= {"added.statistic", "within.areas", "valence.permuted", "weights.correct"}
    for name, value in expected.items():
        assert type(found[name]) is type(value) or name.endswith(".weights"), name
        size = max(1.0, float(np.nanmax(np.abs(np.asarray(value)))))
        np.testing.assert_allclose(np.asarray(found[name]), np.asarray(value), atol=1e-4 * size, err_msg=name)


def test_the_stand_in_refuses_what_a_gpu_refuses() -> None:
    """Tensors of both devices in one operation, and arrays that nobody forced."""
    with FakeGpu(), GPU:
        there = torch.zeros(3)
        assert isinstance(there + 1, OnGpu)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.from_numpy(np.zeros(3, np.float32))
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        array = np.zeros(3, np.float32)
        for refused in (lambda: np.isfinite(there), lambda: array.__setitem__(slice(None), there)):
            with pytest.raises(TypeError, match="numpy"):
                refused()
        here = torch.from_numpy(array)
        with pytest.raises(RuntimeError, match="indices"):
            here[there > 0]
        with pytest.raises(RuntimeError, match="same device"):
            torch.add(here, other=there)
        assert there[np.array([True, False, True])].numpy(force=True).tolist() == [0, 0]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED ...")]
)
def test_a_full_gpu_leaves_the_probes_to_the_cpu(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and the results are the same."""
    config = synthetic.config(4, permutations=19)
    table = synthetic.table(config, 24, 0)
    source = synthetic.source(table, 1, 8, 0)
    real = probe_position

    def full(*arguments: Any) -> Probed:
        if arguments[-1] == GPU:
            raise error
        return real(*arguments)

    monkeypatch.setattr(all_probes, "probe_position", full)
    assert run_probes(table, source, config, device=GPU).probes == run_probes(table, source, config, device=CPU).probes
    assert [record.message for record in caplog.records] == [
        "The GPU has too little free memory for the probes: they run on the CPU."
    ]


def test_a_gpu_that_another_process_has_to_itself_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The probes run on the CPU, with the reason in one line."""

    def taken(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: device busy or unavailable\nCUDA kernel errors might be ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", taken)
    assert all_probes.usable_device() == CPU
    assert "device busy or unavailable" in caplog.text
    assert "kernel errors" not in caplog.text
