"""Autoencoders in SAELens' and sparsify's formats: encode and decode equal to the formulas that these publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from emoprobe.analysis.features.autoencoder import SparseAutoencoder, best_cosines, random_autoencoder
from emoprobe.analysis.features.formats import read_autoencoder, write_autoencoder
from emoprobe.config.science.features import Autoencoder
from emoprobe.models.autoencoders import AutoencoderError, identity, input_width

D, WIDTH, K = 6, 20, 4
X = torch.randn(7, 3, D, generator=torch.Generator().manual_seed(1)) * 3 + 1


def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Random weights in SAELens' names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, WIDTH), "b_enc": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()} | more


def saelens(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """A folder as SAELens saves it."""
    folder.mkdir()
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D, "d_sae": WIDTH, "dtype": "float32", **config}))
    return folder


def top(values: torch.Tensor, k: int) -> torch.Tensor:
    """Zeros in the place of all but the k largest, by sorting."""
    limit = values.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where(values >= limit, values, torch.zeros(()))


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_saelens(tmp_path: Path, architecture: str, subtracts: bool) -> None:
    own = weights()
    config: dict[str, Any] = {"architecture": architecture, "apply_b_dec_to_input": subtracts}
    pre = (X - own["b_dec"] * subtracts) @ own["W_enc"] + own["b_enc"]
    expected = pre.relu()
    if architecture == "jumprelu":
        own["threshold"] = torch.rand(WIDTH, generator=torch.Generator().manual_seed(2)) * 3
        expected = pre * (pre > own["threshold"])
    elif architecture == "topk":
        config["k"] = K
        expected = top(pre, K).relu()
    found = read_autoencoder(saelens(tmp_path / "sae", own, **config))
    assert (found.d, found.width, found.architecture) == (D, WIDTH, architecture)
    assert torch.allclose(found.encode(X), expected, atol=1e-5)
    assert torch.allclose(found.decode(expected), expected @ own["W_dec"] + own["b_dec"], atol=1e-5)
    assert torch.allclose(found.reconstruct(X), expected @ own["W_dec"] + own["b_dec"], atol=1e-4)


def test_saelens_of_older_versions_and_in_half_precision(tmp_path: Path) -> None:
    own = {name: tensor.bfloat16() for name, tensor in weights().items()}
    config = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "sae_lens_training_version": "3.0.0"}
    found = read_autoencoder(saelens(tmp_path / "sae", own, **config))
    pre = (X - own["b_dec"].float()) @ own["W_enc"].float() + own["b_enc"].float()
    assert torch.allclose(found.encode(X), top(pre, K).relu(), atol=1e-5)
    assert found.w_dec.dtype == torch.float32


def test_saelens_normalizes_at_run_time(tmp_path: Path) -> None:
    own = weights()
    mean, deviation = X.mean(-1, keepdim=True), X.std(-1, keepdim=True)
    found = read_autoencoder(saelens(tmp_path / "layer", own, normalize_activations="layer_norm"))
    features = (((X - mean) / (deviation + 1e-5) - own["b_dec"]) @ own["W_enc"] + own["b_enc"]).relu()
    assert torch.allclose(found.encode(X), features, atol=1e-4)
    given = (features @ own["W_dec"] + own["b_dec"]) * deviation + mean
    assert torch.allclose(found.reconstruct(X), given, atol=1e-3)
    found = read_autoencoder(saelens(tmp_path / "norm", own, normalize_activations="constant_norm_rescale"))
    scale = D**0.5 / X.norm(dim=-1, keepdim=True)
    features = ((X * scale - own["b_dec"]) @ own["W_enc"] + own["b_enc"]).relu()
    assert torch.allclose(found.encode(X), features, atol=1e-5)
    assert torch.allclose(found.reconstruct(X), (features @ own["W_dec"] + own["b_dec"]) / scale, atol=1e-4)


def test_saelens_counts_features_by_what_they_write(tmp_path: Path) -> None:
    own = weights()
    found = read_autoencoder(
        saelens(tmp_path / "sae", own, architecture="topk", k=K, rescale_acts_by_decoder_norm=True)
    )
    norms = own["W_dec"].norm(dim=1)
    features = top(((X - own["b_dec"]) @ own["W_enc"] + own["b_enc"]) * norms, K).relu()
    assert torch.allclose(found.encode(X), features, atol=1e-4)
    assert torch.allclose(found.reconstruct(X), features / norms @ own["W_dec"] + own["b_dec"], atol=1e-3)


def sparsify(folder: Path, **config: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder as sparsify saves it."""
    own = weights()
    tensors = {"encoder.weight": own["W_enc"].T.contiguous(), "encoder.bias": own["b_enc"], "W_dec": own["W_dec"]}
    folder.mkdir(parents=True)
    save_file(tensors | {"b_dec": own["b_dec"]}, folder / "sae.safetensors")
    values = {"expansion_factor": 32, "normalize_decoder": True, "num_latents": 0, "k": K, "d_in": D, **config}
    (folder / "cfg.json").write_text(json.dumps(values))
    return folder, own


def test_sparsify(tmp_path: Path) -> None:
    folder, own = sparsify(tmp_path / "layers.3")
    found = read_autoencoder(folder)
    acts = torch.nn.functional.linear(X - own["b_dec"], own["W_enc"].T, own["b_enc"]).relu()
    values, indices = acts.topk(K, dim=-1)
    expected = torch.zeros_like(acts).scatter(-1, indices, values)
    assert torch.allclose(found.encode(X), expected, atol=1e-5)
    given = (own["W_dec"][indices] * values[..., None]).sum(-2) + own["b_dec"]
    assert torch.allclose(found.reconstruct(X), given, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"architecture": "gated"}, "the architecture gated"),
        ({"architecture": "topk"}, "a topk without k"),
        ({"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling_factor"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"architecture": "jumprelu"}, "there is no 'threshold'"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
    ],
)
def test_what_is_not_supported_is_told(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    with pytest.raises(AutoencoderError, match=word):
        read_autoencoder(saelens(tmp_path / "sae", weights(), **config))


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"transcode": True}, "a transcoder"),
        ({"skip_connection": True}, "skip"),
        ({"activation": "groupmax"}, "groupmax"),
    ],
)
def test_what_is_not_supported_of_sparsify_is_told(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    with pytest.raises(AutoencoderError, match=word):
        read_autoencoder(sparsify(tmp_path / "sae", **config)[0])


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(AutoencoderError, match=r"features\.autoencoder\.folder"):
        read_autoencoder(tmp_path)
    folder = saelens(tmp_path / "sae", weights())
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AutoencoderError, match="copy it again"):
        read_autoencoder(folder)
    with pytest.raises(AutoencoderError, match="copy it again"):
        input_width(folder)
    with pytest.raises(AutoencoderError, match="shape"):
        read_autoencoder(saelens(tmp_path / "other", weights(b_enc=torch.zeros(3))))


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    folder, _ = sparsify(tmp_path / "all" / "layers.3")
    settings = Autoencoder(source=str(tmp_path / "all"), folder="layers.3")
    before = identity(settings)
    assert identity(settings) == before
    assert input_width(folder) == D
    (folder / "cfg.json").write_text((folder / "cfg.json").read_text().replace(f'"k": {K}', '"k": 5'))
    assert identity(settings) != before
    assert identity(Autoencoder(k=5)) != identity(Autoencoder())
    assert identity(Autoencoder(seeds=5)) == identity(Autoencoder(seeds=3))


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_what_is_written_reads_the_same(tmp_path: Path, architecture: str) -> None:
    own = weights()
    found = SparseAutoencoder(
        architecture, own["W_enc"], own["b_enc"], own["W_dec"], own["b_dec"],
        threshold=torch.full((WIDTH,), 0.7) if architecture == "batch_topk" else None,
        k=K if architecture == "topk" else None,
    )  # fmt: skip
    write_autoencoder(tmp_path / "sae", found, {"training_tokens": 5})
    again = read_autoencoder(tmp_path / "sae")
    assert again.architecture == architecture
    assert torch.equal(again.encode(X), found.encode(X))
    assert torch.equal(again.reconstruct(X), found.reconstruct(X))
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    # What SAELens itself has a class for.
    assert config["architecture"] == {"topk": "topk", "batch_topk": "jumprelu"}[architecture]


def test_a_random_autoencoder() -> None:
    found = random_autoencoder(WIDTH, K, torch.ones(D), 3)
    assert torch.equal(found.w_dec, random_autoencoder(WIDTH, K, torch.ones(D), 3).w_dec)
    assert int((found.encode(X) > 0).sum(-1).max()) <= K
    assert torch.allclose(best_cosines(found.directions, found.directions), torch.ones(WIDTH))
