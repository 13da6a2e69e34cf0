"""How deep and how wide a model is, as far as that can be told before anything is loaded or downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emoprobe.config.science.model import Model
from emoprobe.models.source import EMBEDDED, is_local

# Before its first conversion there is no file to read these from.
EMBEDDED_LAYERS, EMBEDDED_WIDTH = 30, 576
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")


def layer_count(directory: Path) -> int | None:
    """Layers of a model by its config.json; None where it does not say."""
    return _first(_settings(directory), _LAYERS)


def stream_width(directory: Path) -> int | None:
    """Width of a model's residual stream by its config.json; None where it does not say."""
    return _first(_settings(directory), _WIDTH)


def known_size(model: Model) -> tuple[int | None, int | None]:
    """Layers and width of a configured model, each None where it is not known on this machine yet."""
    if model.source == EMBEDDED:
        return EMBEDDED_LAYERS, EMBEDDED_WIDTH
    directory = Path(model.source).expanduser() if is_local(model.source) else downloaded(model)
    return (None, None) if directory is None else (layer_count(directory), stream_width(directory))


def downloaded(model: Model) -> Path | None:
    """Where the configuration of a model from the hub lies, if it has been downloaded."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
    except (ImportError, ValueError):
        return None
    return Path(found).parent if isinstance(found, str) else None


def read_settings(directory: Path) -> dict[str, Any]:
    """The content of a model's config.json; empty where it cannot be read."""
    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _settings(directory: Path) -> dict[str, Any]:
    values = read_settings(directory)
    found = values.get("text_config", values)
    return found if isinstance(found, dict) else values


def _first(values: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((values[key] for key in keys if isinstance(values.get(key), int)), None)
