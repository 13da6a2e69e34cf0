"""Pretrained sparse autoencoders: where their files are, and which they are. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from emoprobe.config.science.features import Autoencoder
from emoprobe.config.section import is_local
from emoprobe.models.weights import shapes
from emoprobe.text import first_line

Format = Literal["saelens", "sparsify"]
CONFIG = "cfg.json"
WEIGHTS: dict[str, Format] = {"sae_weights.safetensors": "saelens", "sae.safetensors": "sparsify"}


class AutoencoderError(ValueError):
    """An autoencoder that cannot be found or used; the message says what to do."""


def identity(settings: Autoencoder) -> dict[str, Any]:
    """Return what a computation depends on: how one is trained, or which files it is; nothing is downloaded."""
    if settings.source is None:
        return settings.content()
    weights: dict[str, Any] = settings.model_dump(mode="json", include={"source", "folder", "revision"})
    if is_local(settings.source):
        folder = local_folder(settings)
        files = [path for path in (folder / name for name in (CONFIG, *WEIGHTS)) if path.is_file()]
        weights["files"] = [[path.name, path.stat().st_size, _sample(path)] for path in files]
    return weights


def local_folder(settings: Autoencoder) -> Path:
    """The folder of a local source."""
    assert settings.source is not None
    return Path(settings.source).expanduser() / (settings.folder or "")


def weights_folder(settings: Autoencoder) -> Path:
    """The folder of a source, downloaded if it is on the hub and not there yet.

    Raises:
        AutoencoderError: it cannot be had.
    """
    assert settings.source is not None
    if is_local(settings.source):
        return local_folder(settings)
    from huggingface_hub import snapshot_download

    pattern = f"{settings.folder}/*" if settings.folder else "*"
    try:
        root = snapshot_download(settings.source, revision=settings.revision, allow_patterns=[pattern])
    except Exception as error:
        raise AutoencoderError(
            f"features.autoencoder.source: {settings.source} could not be loaded from the Hugging Face hub: "
            f"{first_line(error)} Check the id, folder and revision, or give the path of a local directory (./name or "
            "/path/name)."
        ) from error
    return Path(root) / (settings.folder or "")


def weights_file(folder: Path) -> tuple[Path, Format]:
    """The file with the weights of a folder, and its format.

    Raises:
        AutoencoderError: there is none, or no configuration beside it.
    """
    for name, known in WEIGHTS.items():
        if (folder / name).is_file() and (folder / CONFIG).is_file():
            return folder / name, known
    raise AutoencoderError(
        f"features.autoencoder.source: {folder} is no autoencoder in SAELens' or sparsify's format: it needs {CONFIG} "
        f"and {' or '.join(WEIGHTS)}; where there is one in a folder for each layer, name it in "
        "features.autoencoder.folder"
    )


def input_width(folder: Path) -> int:
    """Return how many values an autoencoder takes, by the header of its weights.

    Raises:
        AutoencoderError: it cannot be read.
    """
    path, known = weights_file(folder)
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return shapes(path)["b_dec"][0]
    except (OSError, ValueError, LookupError) as error:
        raise AutoencoderError(
            f"features.autoencoder.source: {path} cannot be read as {known} ({error}); copy it again"
        ) from None


def _sample(path: Path) -> str:
    """A digest of a file's ends and of some of its bytes: gigabytes cannot be read for every plan."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        for part in range(64):
            file.seek(size * part // 64)
            digest.update(file.read(4096))
    return digest.hexdigest()
