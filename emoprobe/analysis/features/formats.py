"""Autoencoders on the disk: SAELens' format, which is also written, and sparsify's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from emoprobe.analysis.features.autoencoder import Normalization, SparseAutoencoder
from emoprobe.models.autoencoders import CONFIG, AutoencoderError, weights_file
from emoprobe.results import atomic
from emoprobe.results.layout import AUTOENCODER_FILES

# Architectures of SAELens that are an encoder and a decoder with a bias each, and what decides which features count.
THRESHOLDS = ("jumprelu", "jumprelu_sae", "batch_topk", "batchtopk")
NOT_SUPPORTED = "features.autoencoder.source: {folder}: {reason} is not supported"


def read_autoencoder(folder: Path) -> SparseAutoencoder:
    """Read an autoencoder in SAELens' or sparsify's format.

    Raises:
        AutoencoderError: it is missing or damaged, or of a kind that is not supported; the message says which.
    """
    path, known = weights_file(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        autoencoder = (_saelens if known == "saelens" else _sparsify)(folder, config, weights)
    except (OSError, ValueError, SafetensorError, KeyError) as error:
        if isinstance(error, AutoencoderError):
            raise
        raise AutoencoderError(
            f"features.autoencoder.source: {folder} cannot be read in {known}'s format "
            f"({f'there is no {error}' if isinstance(error, KeyError) else error}); copy it again"
        ) from None
    width, d = autoencoder.w_dec.shape
    shapes = {"W_enc": (d, width), "b_enc": (width,), "b_dec": (d,)}
    for name, value in (("W_enc", autoencoder.w_enc), ("b_enc", autoencoder.b_enc), ("b_dec", autoencoder.b_dec)):
        if tuple(value.shape) != shapes[name]:
            raise AutoencoderError(
                f"features.autoencoder.source: {folder}: {name} has shape {list(value.shape)}, not "
                f"{list(shapes[name])}; copy it again"
            )
    return autoencoder


def _saelens(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> SparseAutoencoder:
    """From `cfg.json` and `sae_weights.safetensors`, of any version that has these two files.

    Older versions say `activation_fn` or `activation_fn_str: topk` and `activation_fn_kwargs: {k}` of a standard one.
    """
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    architecture = str(config.get("architecture") or "standard")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    if architecture not in ("standard", "topk", *THRESHOLDS):
        raise AutoencoderError(NOT_SUPPORTED.format(folder=folder, reason=f"the architecture {architecture}"))
    normalization = cast(Normalization, config.get("normalize_activations") or "none")
    if normalization not in get_args(Normalization):
        raise AutoencoderError(
            NOT_SUPPORTED.format(folder=folder, reason=f"normalize_activations: {normalization}")
            + ", as the factor is not in the files; fold it into the weights (SAELens: "
            "fold_activation_norm_scaling_factor) and save it again"
        )
    if config.get("finetuning_scaling_factor"):
        raise AutoencoderError(NOT_SUPPORTED.format(folder=folder, reason="finetuning_scaling_factor"))
    if config.get("reshape_activations", "none") not in (None, "none"):
        raise AutoencoderError(NOT_SUPPORTED.format(folder=folder, reason="an autoencoder of attention heads"))
    w_enc, b_enc, w_dec = weights["W_enc"], weights["b_enc"], weights["W_dec"]
    if config.get("rescale_acts_by_decoder_norm"):  # features count by what they write
        norms = w_dec.norm(dim=1)
        w_enc, b_enc, w_dec = w_enc * norms, b_enc * norms, w_dec / norms[:, None]
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    if architecture != "topk":
        k = None
    elif not isinstance(k, int):
        raise AutoencoderError(NOT_SUPPORTED.format(folder=folder, reason="a topk without k"))
    return SparseAutoencoder(
        architecture=str(config.get("emoprobe_architecture") or architecture),
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=w_dec,
        b_dec=weights["b_dec"],
        subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        threshold=weights["threshold"] if architecture in THRESHOLDS else None,
        k=k,
        normalization=normalization,
    )


def _sparsify(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> SparseAutoencoder:
    """From `cfg.json` and `sae.safetensors`."""
    activation = config.get("activation", "topk")
    for condition, reason in (
        (config.get("transcode"), "a transcoder"),
        (config.get("skip_connection") or "W_skip" in weights, "a skip connection"),
        (activation != "topk", f"activation: {activation}"),
        ("W_dec" not in weights, "an encoder without a decoder"),
    ):
        if condition:
            raise AutoencoderError(NOT_SUPPORTED.format(folder=folder, reason=reason))
    return SparseAutoencoder(
        architecture="topk",
        w_enc=weights["encoder.weight"].T.contiguous(),
        b_enc=weights["encoder.bias"],
        w_dec=weights["W_dec"],
        b_dec=weights["b_dec"],
        k=int(config["k"]),
    )


def write_autoencoder(folder: Path, autoencoder: SparseAutoencoder, about: dict[str, Any]) -> None:
    """Write an autoencoder in SAELens' format; it must not normalize activations.

    Args:
        folder: where to.
        autoencoder: the autoencoder.
        about: what else its `cfg.json` says, such as the model and the layer.
    """
    weights = {
        "W_enc": autoencoder.w_enc,
        "b_enc": autoencoder.b_enc,
        "W_dec": autoencoder.w_dec,
        "b_dec": autoencoder.b_dec,
    }
    if autoencoder.threshold is not None:
        weights["threshold"] = autoencoder.threshold
    config = {
        "architecture": "topk"
        if autoencoder.k is not None
        else "jumprelu"
        if autoencoder.threshold is not None
        else "standard",
        "emoprobe_architecture": autoencoder.architecture,
        "d_in": autoencoder.d,
        "d_sae": autoencoder.width,
        **({"k": autoencoder.k} if autoencoder.k is not None else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": autoencoder.subtract_b_dec,
        "normalize_activations": autoencoder.normalization,
        "reshape_activations": "none",
        **about,
    }
    described, tensors = (folder / name for name in AUTOENCODER_FILES)
    atomic.write_bytes(tensors, save({name: tensor.contiguous() for name, tensor in weights.items()}))
    atomic.write_json(described, config)
