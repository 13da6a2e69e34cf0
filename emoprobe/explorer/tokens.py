"""Projections of every captured token on the directions of features, and of tones where these were fitted there."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from emoprobe.explorer.projections import MAX_DIRECTIONS, STEP, chosen_directions
from emoprobe.explorer.scripts import Pages
from emoprobe.models.source import ModelCard, ModelError
from emoprobe.models.tokens import token_texts
from emoprobe.results.activation_folder import METADATA, ActivationFolder
from emoprobe.results.activations import read_tensors
from emoprobe.results.layout import Layout, draw_id

MAX_TONES = 8
# Directions of tones are taken from this position, or from the first one that has any.
POSITION = "response_mean"
Texts = Callable[[Sequence[int]], list[str]]


@dataclass(frozen=True)
class TokenProjections:
    """Standardised projections of tokens: for each conversation (directions, tokens), and the texts of its tokens.

    A projection is the distance from the mean over all tokens but the first of each conversation, whose activations
    are of another size, in standard deviations.
    """

    keys: list[tuple[int, int]]
    values: list[np.ndarray]
    texts: list[list[str]]
    directions: list[tuple[str, str]]
    hook_point: str
    layer: int

    @classmethod
    def read(
        cls, layout: Layout, rows: Sequence[dict[str, Any]], questions: dict[str, int], texts: Texts | None = None
    ) -> TokenProjections | None:
        """Project the captured tokens of some trajectories; None where there are no such tokens or directions.

        Args:
            layout: the experiment.
            rows: of the table `trajectories`.
            questions: sample → its number.
            texts: the text of each of some token ids; default: by the experiment's tokenizer.

        Raises:
            DamagedError, ActivationError: a file is damaged; the message names it.
        """
        folders, keys = [], []
        for number, row in enumerate(rows):
            path = layout.tokens(row["variant"], draw_id(row["sample_id"], row["draw"]))
            if (path / METADATA).exists():
                folder = ActivationFolder.read(path)
                if folder.metadata.error is None and folder.tensors.exists():
                    folders.append(folder)
                    keys.append((number, questions[row["sample_id"]]))
        if not folders:
            return None
        point, layer = folders[0].metadata.hook_points[0], folders[0].metadata.layers[0]
        named = _directions(layout, point, layer)
        if not named:
            return None
        vectors = np.stack([vector for _, _, vector in named])
        values = [vectors @ read_tensors(folder.tensors)[point][0].astype(np.float32).T for folder in folders]
        usual = np.concatenate([each[:, 1:] for each in values], axis=1)
        means, deviations = usual.mean(1, keepdims=True), usual.std(1, keepdims=True)
        deviations = np.where(deviations > 0, deviations, 1.0)
        decode = texts or _tokenizer(layout)
        return cls(
            keys=keys,
            values=[np.clip(np.rint((each - means) / deviations * STEP), -127, 127).astype(np.int8) for each in values],
            texts=[decode(folder.metadata.token_ids) for folder in folders],
            directions=[(name, about) for name, about, _ in named],
            hook_point=point,
            layer=layer,
        )

    def write(self, pages: Pages, notes: list[str]) -> dict[str, Any]:
        """Write the projections; return what the index says of them."""
        numbered = zip(self.keys, self.values, self.texts, strict=True)
        for question, group in groupby(numbered, key=lambda entry: entry[0][1]):
            entries = [(key[0], base64.b64encode(values.tobytes()).decode(), texts) for key, values, texts in group]
            pages.add(question, entries, sum(len(entry[1]) + 8 * len(entry[2]) for entry in entries))
        pages.flush()
        if any(place < 0 for place in pages.places.values()):
            notes.append("The tokens of some questions exceed the size limit of the explorer and are left out.")
        return {
            "directions": self.directions,
            "hook": self.hook_point,
            "layer": self.layer,
            "step": STEP,
            "pages": sorted(pages.places.items()),
        }


def _directions(layout: Layout, point: str, layer: int) -> list[tuple[str, str, np.ndarray]]:
    """Name, meaning and (d,) of at most 20 directions at a hook point and layer: of tones, then of features."""
    found: list[tuple[str, str, np.ndarray]] = []
    if layout.directions().exists():
        directions, layers = chosen_directions(layout)
        for direction in directions:
            places = [position for at, position in direction.tensors if at == point]
            if places and layer in layers:
                position = POSITION if POSITION in places else places[0]
                vector = direction.tensors[point, position][layers.index(layer)]
                found.append((direction.name, f"{direction.about}, fitted at {position}", vector))
        found = found[:MAX_TONES]
    if layout.feature_directions().exists():
        tensors = read_tensors(layout.feature_directions())
        names = sorted((name for name in tensors if not name.endswith(".norm")), key=lambda name: (len(name), name))
        for name in names[: MAX_DIRECTIONS - len(found)]:
            what = f"what {name.replace('-', ' ')} of the autoencoder writes along"
            found.append((name, what, tensors[name].astype(np.float32)))
    return found


def _tokenizer(layout: Layout) -> Texts:
    """Token ids to texts; to their numbers where the model's tokenizer is not here."""

    def numbers(ids: Sequence[int]) -> list[str]:
        return [f"<{one}>" for one in ids]

    if not layout.model.exists() or not (directory := Path(ModelCard.read(layout.model).path)).is_dir():
        return numbers
    try:
        token_texts([], directory)
    except ModelError:
        return numbers
    return lambda ids: token_texts(ids, directory)
