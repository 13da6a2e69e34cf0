"""Activations as analysts read them: every dtype, without PyTorch, and no more bytes than were asked for."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from emoprobe.results.activations import check, load_activations, load_block
from emoprobe.results.layout import Layout
from tests.workspace import ROOT

POINT = "input_layernorm.output"


def write_folder(root: Path, tensor: torch.Tensor, sample: str = "q1") -> Path:
    """An activation folder as the server writes it, of two named positions."""
    folder = root / "activations" / "control" / sample
    folder.mkdir(parents=True)
    path = folder / "activations.safetensors"
    save_file({POINT: tensor}, path)
    content = path.read_bytes()
    write_metadata(
        folder,
        dtype=str(tensor.dtype).removeprefix("torch."),
        layers=list(range(tensor.shape[0])),
        positions=[{"name": "last_prompt", "span": [1, 2]}, {"name": "response_mean", "span": [2, 3]}],
        token_ids=[1, 2, 3],
        shapes={POINT: list(tensor.shape)},
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
    return folder


def write_metadata(folder: Path, **fields: object) -> None:
    (folder / "metadata.json").write_text(json.dumps({"hook_points": [POINT], **fields}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_are_those_that_torch_wrote(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    # The largest and smallest numbers of a dtype are where a conversion goes wrong first.
    tensor[0, 0, :4] = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny, -0.0])
    folder = write_folder(tmp_path, tensor)
    found = load_activations(tmp_path, POINT, "response_mean")
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values[0], tensor[:, 1].float().numpy())
    first = load_activations(tmp_path, POINT, "last_prompt", layers=[2, 0])
    assert np.array_equal(first.values[0], tensor[[2, 0], 0].float().numpy())
    assert check(folder) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_blocks_of_layers(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = [torch.full((3, 2, 8), float(number)).to(dtype) for number in range(2)]
    for number, tensor in enumerate(tensors):
        write_folder(tmp_path, tensor, f"q{number}")
    pairs = [("control", "q0"), ("control", "q1")]
    blocks = load_block(Layout(tmp_path), pairs, POINT, 1, 3, ["last_prompt", "response_mean"])
    assert list(blocks) == ["last_prompt", "response_mean"]
    for values in blocks.values():
        assert values.dtype == (np.float16 if dtype == torch.float16 else np.float32)
        assert np.array_equal(values, np.stack([tensor[1:3, 0].float().numpy() for tensor in tensors]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_that_are_not_finite_are_found(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    tensor = torch.zeros(3, 2, 8, dtype=dtype)
    tensor[1, 1, 5] = bad
    assert ["not finite" in problem for problem in check(write_folder(tmp_path, tensor))] == [True]


def test_another_dtype_or_shape_than_the_metadata_says_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, torch.zeros(3, 2, 8, dtype=torch.bfloat16))
    found = json.loads((folder / "metadata.json").read_text())
    write_metadata(folder, **{**found, "dtype": "float16", "layers": [0, 1]})
    assert [problem.split(" has ")[1] for problem in check(folder)] == [
        "shape (3, 2, 8)",
        "dtype bfloat16, not float16",
    ]


def test_only_the_bytes_that_were_asked_for_are_read(tmp_path: Path) -> None:
    layers, tokens, d = 64, 2**18, 1024  # 32 GiB on paper and a few kB on the disk: no memory could take it whole
    folder = tmp_path / "activations" / "control" / "q1"
    folder.mkdir(parents=True)
    size = layers * tokens * d * 2
    header = json.dumps({POINT: {"dtype": "BF16", "shape": [layers, tokens, d], "data_offsets": [0, size]}}).encode()
    with open(folder / "activations.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
        file.seek(8 + len(header) + 2 * d * (tokens + 7))
        file.write(np.full(d, 0x3F80, dtype="<u2").tobytes())  # ones, at token 7 of layer 1
    write_metadata(
        folder, dtype="bfloat16", layers=list(range(layers)), positions="all", token_ids=[1] * tokens,
        shapes={POINT: [layers, tokens, d]}, sha256="", bytes=size,
    )  # fmt: skip
    values = load_activations(tmp_path, POINT, 7).values
    assert values.shape == (1, layers, d)
    assert values.sum(axis=2).tolist() == [[0.0, float(d), *[0.0] * (layers - 2)]]


def test_reading_brings_no_torch(tmp_path: Path) -> None:
    write_folder(tmp_path, torch.zeros(3, 2, 8, dtype=torch.bfloat16))
    code = (
        "import sys; from emoprobe import load_activations; "
        f"load_activations({str(tmp_path)!r}, {POINT!r}, 'last_prompt'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
