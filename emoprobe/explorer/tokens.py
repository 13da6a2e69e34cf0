"""Projections of every captured token on the directions of features and of tones.

Tones have the directions that probes fitted at the layer of the tokens. Where every token was captured in place of
named positions there are none of these, and differences of means over the responses' tokens are taken instead.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from emoprobe.explorer.projections import MAX_DIRECTIONS, STEP, FittedDirections
from emoprobe.explorer.scripts import Pages
from emoprobe.explorer.search import encoded
from emoprobe.models.directory import ModelError
from emoprobe.models.source import ModelCard
from emoprobe.models.tokens import token_texts
from emoprobe.results.activation_folder import METADATA, ActivationError, ActivationFolder
from emoprobe.results.activations import read_tensors
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.record import unreadable_words

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
    away: int = 0

    @classmethod
    def read(
        cls,
        layout: Layout,
        rows: Sequence[dict[str, Any]],
        questions: dict[str, int],
        fitted: FittedDirections,
        reference: Sequence[str] = (),
        features: bool = True,
        texts: Texts | None = None,
    ) -> TokenProjections | None:
        """Project the captured tokens of some trajectories; None where there are no such tokens or directions.

        Tokens that are in object storage alone are left out and counted in `away`.

        Args:
            layout: the experiment.
            rows: of the table `trajectories`.
            questions: sample → its number.
            fitted: the directions that probes fitted.
            reference: the variant that means are compared with where there are none of these; empty: no variant.
            features: whether tokens and directions of features are of the same config.
            texts: the text of each of some token ids; default: by the experiment's tokenizer.

        Raises:
            DamagedError, ActivationError: a file is damaged; the message names it.
        """
        folders, there, away = [], [], 0
        for number, row in enumerate(rows):
            folder = _folder(layout, row, features=features)
            if folder is not None and not folder.tensors.exists():
                away += 1
            elif folder is not None:
                folders.append(folder)
                there.append((number, row))
        if not folders:
            return None
        metadata = folders[0].metadata
        # One layer is shown: that of features has only one.
        point, layer = metadata.hook_points[0], metadata.layers[len(metadata.layers) // 2]
        found = _directions(layout, fitted, point, layer, features=features)
        if not found and reference:
            found = _differences(folders, [row["variant"] for _, row in there], reference[0], point, layer)
        if not found:
            return None
        vectors = np.stack([vector for _, _, vector in found])
        # Read again after `_differences`: every token of a large run does not fit into memory.
        values = [vectors @ _activations(folder, point, layer).T for folder in folders]
        usual = np.concatenate([each[:, 1:] for each in values], axis=1)
        means, deviations = usual.mean(1, keepdims=True), usual.std(1, keepdims=True)
        deviations = np.where(deviations > 0, deviations, 1.0)
        decode = texts or _tokenizer(layout)
        return cls(
            keys=[(number, questions[row["sample_id"]]) for number, row in there],
            values=[np.clip(np.rint((each - means) / deviations * STEP), -127, 127).astype(np.int8) for each in values],
            texts=[decode(folder.metadata.token_ids) for folder in folders],
            directions=[(name, about) for name, about, _ in found],
            hook_point=point,
            layer=layer,
            away=away,
        )

    def write(self, pages: Pages, notes: list[str], names: Sequence[str]) -> dict[str, Any]:
        """Write the projections; return what the index says of them. `names` are the ids of all questions."""
        numbered = zip(self.keys, self.values, self.texts, strict=True)
        for question, group in groupby(numbered, key=lambda entry: entry[0][1]):
            entries = [(key[0], base64.b64encode(values.tobytes()).decode(), texts) for key, values, texts in group]
            pages.add(question, entries, sum(len(entry[1]) + 8 * len(entry[2]) for entry in entries))
        pages.flush()
        notes += pages.left_out("tokens", names)
        if self.away:
            notes.append(
                f"The tokens of {self.away:,} conversation{'' if self.away == 1 else 's'} are in object storage alone: "
                "to see them, run `make pull` "
                "and make the explorer again."
            )
        return {
            "rows": encoded([number for number, _ in self.keys]),
            "directions": self.directions,
            "hook": self.hook_point,
            "layer": self.layer,
            "step": STEP,
            "pages": sorted(pages.places.items()),
        }


def _folder(layout: Layout, row: dict[str, Any], *, features: bool) -> ActivationFolder | None:
    """Return the folder with every token of a trajectory, that of the features first; None where there is none."""
    pair = row["variant"], draw_id(row["sample_id"], row["draw"])
    for path in [layout.tokens(*pair)] * features + [layout.activations(*pair)]:
        if (path / METADATA).exists():
            folder = ActivationFolder.read(path)
            if folder.metadata.error is None and folder.metadata.positions == "all":
                return folder
    return None


def _activations(folder: ActivationFolder, point: str, layer: int) -> np.ndarray:
    """Return (tokens, d), float32."""
    try:
        with safe_open(folder.tensors, "np") as file:
            values: np.ndarray = file.get_slice(point)[folder.metadata.layers.index(layer)]
    except (OSError, SafetensorError, ValueError, IndexError) as error:
        raise ActivationError(f"{folder.tensors} {unreadable_words(error, 'its folder')}") from None
    return values.astype(np.float32)


def _directions(
    layout: Layout, fitted: FittedDirections, point: str, layer: int, *, features: bool
) -> list[tuple[str, str, np.ndarray]]:
    """Name, meaning and (d,) of at most 20 directions at a hook point and layer: of tones, then of features."""
    found: list[tuple[str, str, np.ndarray]] = []
    for direction in fitted.directions:
        places = [position for at, position in direction.tensors if at == point]
        if places and layer in fitted.layers:
            position = POSITION if POSITION in places else places[0]
            vector = direction.tensors[point, position][fitted.layers.index(layer)]
            found.append((direction.name, f"{direction.about}, fitted at {position}", vector))
    found = found[:MAX_TONES]
    if features and layout.feature_directions().exists():
        tensors = read_tensors(layout.feature_directions())
        names = sorted((name for name in tensors if not name.endswith(".norm")), key=lambda name: (len(name), name))
        for name in names[: MAX_DIRECTIONS - len(found)]:
            what = f"what {name.replace('-', ' ')} of the autoencoder writes along"
            found.append((name, what, tensors[name].astype(np.float32)))
    return found


def _differences(
    folders: Sequence[ActivationFolder], variants: Sequence[str], reference: str, point: str, layer: int
) -> list[tuple[str, str, np.ndarray]]:
    """Name, meaning and unit vector (d,) of the difference of each variant's mean to the reference's, at most 20."""
    means: dict[str, list[np.ndarray]] = defaultdict(list)
    for variant, folder in zip(variants, folders, strict=True):
        spans = folder.metadata.spans
        start, end = (spans.response if spans else None) or (1, None)
        tokens = _activations(folder, point, layer)[start:end]
        if len(tokens):
            means[variant].append(tokens.mean(0))
    if reference not in means:
        return []
    base = np.mean(means.pop(reference), axis=0)
    found = []
    for name, some in list(means.items())[:MAX_DIRECTIONS]:
        difference = np.mean(some, axis=0) - base
        if (length := float(np.linalg.norm(difference))) > 0:
            found.append(
                (name, f"mean of {name} minus mean of {reference}, over tokens of responses", difference / length)
            )
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
