"""Activations as analysts read them: every dtype, without PyTorch, and no more bytes than were asked for."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from emoprobe import load_trajectories
from emoprobe.config.files import parse_config
from emoprobe.config.reading import to_yaml
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.activations import Activations, check, load_activations, load_block
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.trajectory import Trajectory
from tests.workspace import ROOT

POINT = "input_layernorm.output"


def write_folder(root: Path, tensor: torch.Tensor, sample: str = "q1", variant: str = "control") -> Path:
    """An activation folder as the server writes it, of two named positions."""
    folder = root / "activations" / variant / sample
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


def experiment(root: Path, *, draws: int = 2, layers: object = "all", depth: int = 3) -> list[tuple[str, str]]:
    """Trajectories and activations of two variants and samples, all draws of each, and what an earlier config left."""
    values = {
        "dataset": {"samples": 2, "id_prefix": "q"},
        "variants": {"control": {}, "calm": {"text": "Be calm."}},
        "generation": {"draws": draws, "temperature": 0.5},
        "capture": {"layers": layers},
    }
    atomic.write_text(Layout(root).resolved_yaml, to_yaml(parse_config(values).resolved()))
    pairs = [
        (variant, draw_id(f"q_000{number}", draw))
        for variant in ("control", "calm")
        for number in (1, 2)
        for draw in range(1, draws + 1)
    ]
    for variant, name in [*pairs, ("control", "q_0003"), ("old", "q_0001"), ("calm", "q_0001-d9")]:
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Answer: 7"}]
        Trajectory(said).write(Layout(root).pair(variant, name))
        write_folder(root, torch.zeros(depth, 2, 4), name, variant)
    return pairs


def test_activations_join_with_the_table_of_trajectories(tmp_path: Path) -> None:
    """With several draws, and with files that the config does not contain."""
    pairs = experiment(tmp_path)
    with pytest.warns(UserWarning, match="3 trajectories that experiment.yaml does not contain are left out"):
        table = load_trajectories(tmp_path)
    index = load_activations(tmp_path, POINT, "last_prompt").index
    keys = ["variant", "sample_id", "draw"]
    assert index[keys].dtypes.to_dict() == table[keys].dtypes.to_dict()
    for left, right in ((table, index), (index, table)):
        joined = left.merge(right, on=keys, how="left", validate="one_to_one", indicator=True)
        assert len(joined) == len(pairs) == 8
        assert (joined["_merge"] == "both").all()
    assert {*index["draw"]} == {1, 2}


def test_samples_are_named_by_id_or_folder(tmp_path: Path) -> None:
    experiment(tmp_path)
    found = load_activations(tmp_path, POINT, "last_prompt", samples=["q_0001"], variants=["calm", "control"])
    assert found.index["draw"].tolist() == [1, 2, 1, 2]
    assert found.index["variant"].tolist() == ["calm", "calm", "control", "control"]
    assert load_activations(tmp_path, POINT, "last_prompt", samples=["q_0001-d2"]).index["draw"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"variants": ["calmm"]}, r"no activations of the variant calmm \(there: calm, control\)"),
        ({"variants": ["calm", "old"]}, "of the variant old"),
        ({"samples": ["q_0007"]}, r"no activations of the sample q_0007 \(there: q_0001, q_0001-d2"),
        ({"variants": "calm"}, "must be lists"),
        ({"layers": [9]}, r"layers \[9\] were not captured"),
        ({"layers": [-4]}, r"layers \[-1\] were not captured"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    experiment(tmp_path, draws=2)
    with pytest.raises(ActivationError, match=message):
        load_activations(tmp_path, POINT, "last_prompt", **asked)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "pilot").mkdir()
    with pytest.raises(ActivationError, match="nowhere does not exist"):
        load_activations(tmp_path / "nowhere", POINT, "last_prompt")
    with pytest.raises(ActivationError, match="pilot holds no activations"):
        load_activations(tmp_path / "pilot", POINT, "last_prompt")
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist \(folders in .*: pilot\)"):
        load_trajectories(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"pilot holds no trajectory.*there: nothing"):
        load_trajectories(tmp_path / "pilot")


@pytest.mark.parametrize(
    ("config", "captured", "asked", "layers"),
    [
        ("all", [0, 1, 2], [-1, 0], [2, 0]),
        ([0, 14, -1], [0, 14, 29], [-1], [29]),
        ([-2], [28], [-2], [28]),
        ([4, 14], [4, 14], [-1], None),
        ([-1, -2, 3], [3, 28, 29], [-2], [28]),
    ],
)
def test_layers_count_from_the_end_as_in_the_config(
    tmp_path: Path, config: object, captured: list[int], asked: list[int], layers: list[int] | None
) -> None:
    experiment(tmp_path, draws=1, layers=config, depth=len(captured))
    for path in tmp_path.glob("activations/*/*/metadata.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"layers": captured}))
    if layers is None:
        with pytest.raises(
            ActivationError, match=r"layers \[-1\] count from the model's last layer.*captured: \[4, 14\]"
        ):
            load_activations(tmp_path, POINT, "last_prompt", layers=asked)
    else:
        assert load_activations(tmp_path, POINT, "last_prompt", layers=asked).layers == layers


def test_a_representation_is_one_short_line(tmp_path: Path) -> None:
    write_folder(tmp_path, torch.zeros(3, 2, 8))
    shown = repr(load_activations(tmp_path, POINT, "last_prompt"))
    assert shown == "Activations(1 trajectories × 3 layers × 8, float32, layers=[0, 1, 2])"
    values, index = np.zeros((9, 40, 2)), pd.DataFrame({"variant": ["x"] * 9})
    assert repr(Activations(values, index, list(range(40)))).endswith("float64, layers=[0, …, 39])")


def test_the_public_names_are_listed() -> None:
    import emoprobe

    assert {"load_activations", "load_config", "load_trajectories", "read_table"} <= set(dir(emoprobe))
