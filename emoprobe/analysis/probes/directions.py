"""Directions of the variants: differences of means to the reference, their cosines, and the plane the variants span.

Two differences to the same reference share its noise, and alone for that have a cosine of about ½. So cosines are taken
between differences over disjoint halves of the questions: of pure noise they are about 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from emoprobe.analysis.probes.probe_design import LEAST_UNITS
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import CONTROL

LEAST_BLOCKS = 4  # two halves of two
HALVINGS = 10
ROUNDING = 1e-9  # of a squared length: what is left below that is the error of taking a block out of it


def primary_reference(config: Config, variants: list[str]) -> str | None:
    """The last of the references that is there: by default a filler, else control."""
    references = references_of(variants, config.analysis.references)
    return references[-1] if references else None


@dataclass
class Directions:
    """Gathers directions cell by cell.

    `tensors` maps, each with zeros where there is nothing,
    `diff_means/{hook point}/{position}` to (n_variants without the reference, n_layers, d) of unit length,
    `valence/{hook point}/{position}` to (n_layers, d), from negative to positive, of unit length,
    `probe/{target}/{hook point}/{position}` to (n_columns, n_layers, d) of unit length, and
    `norm/{hook point}/{position}` to (n_layers), the median length of the activations.
    """

    names: list[str]
    reference: str | None
    layers: list[int]
    d: int
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    cosines: list[dict[str, Any]] = field(default_factory=list)
    plane: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def empty(cls, names: list[str], config: Config, layers: list[int], d: int) -> Directions:
        """Nothing gathered yet, for variants in their order."""
        return cls(names, primary_reference(config, names), layers, d)

    @property
    def variants(self) -> list[str]:
        """All but the reference."""
        return [name for name in self.names if name != self.reference]

    def add(self, hook_point: str, position: str, begin: int, features: torch.Tensor, design: RowCodes) -> None:
        """Take in some layers from `begin` on: features (layers, n, d) of the rows of a design, stand-ins left out."""
        end = begin + len(features)
        places = [{"hook_point": hook_point, "position": position, "layer": layer} for layer in self.layers[begin:end]]
        norms = features.norm(dim=2).median(1).values.numpy()
        self._slot(f"norm/{hook_point}/{position}", ())[begin:end] = norms
        for number, place in enumerate(places):
            self._add_plane(place, features[number], design)
        if self.reference is None:
            return
        pairs = [_pairs(design, self.names.index(name), self.names.index(self.reference)) for name in self.variants]
        if not any(len(ours) for ours, _ in pairs):
            return
        means = torch.zeros((len(features), len(pairs), self.d))
        explained = np.full((len(features), len(pairs)), np.nan)
        block, count = _blocks(design)
        sums = torch.zeros((len(features), count, len(pairs), self.d))
        for number, (ours, theirs) in enumerate(pairs):
            if not len(ours):
                continue
            differences = features[:, ours] - features[:, theirs]
            means[:, number] = differences.mean(1)
            sums[:, :, number].index_add_(1, torch.from_numpy(block[ours]), differences)
            along = (differences @ _unit(means[:, number])[..., None]).square().sum((1, 2))
            explained[:, number] = (along / differences.square().sum((1, 2)).clamp(min=1e-12)).numpy()
        name = f"diff_means/{hook_point}/{position}"
        self._slot(name, (len(pairs),))[:, begin:end] = _unit(means).transpose(0, 1).numpy()
        self._add_valence(hook_point, position, begin, means, pairs, design)
        cosine, low, high = cross_fitted_cosines(sums, len(np.unique(design.group)), design.seed)
        there = [number for number, (ours, _) in enumerate(pairs) if len(ours)]
        for layer, place in enumerate(places):
            for row in there:
                for column in there:
                    diagonal = row == column
                    self.cosines.append(
                        place
                        | {
                            "variant": self.variants[row],
                            "other": self.variants[column],
                            "cosine": float(cosine[layer, row, column]),
                            "low": float(low[layer, row, column]),
                            "high": float(high[layer, row, column]),
                            "norm": float(means[layer, row].norm()) if diagonal else None,
                            "explained": float(explained[layer, row]) if diagonal else None,
                        }
                    )

    def add_probe(
        self, target: str, classes: list[str], hook_point: str, position: str, begin: int, weights: torch.Tensor
    ) -> None:
        """Take in the weights of some layers' probes for raw features, (layers, d, columns)."""
        name = f"probe/{target}/{hook_point}/{position}"
        self.classes[target] = classes
        columns = _unit(weights.mT).transpose(0, 1).numpy()
        self._slot(name, (len(columns),))[:, begin : begin + len(weights)] = columns

    def _add_valence(
        self, hook_point: str, position: str, begin: int, means: torch.Tensor,
        pairs: list[tuple[np.ndarray, np.ndarray]], design: RowCodes,
    ) -> None:  # fmt: skip
        signs = np.array([design.valence[self.names.index(name)] for name in self.variants])
        there = np.array([len(ours) > 0 for ours, _ in pairs])
        positive, negative = (torch.from_numpy((signs == sign) & there) for sign in (1, -1))
        if positive.any() and negative.any():
            direction = _unit(means[:, positive].mean(1) - means[:, negative].mean(1)).numpy()
            slot = self._slot(f"valence/{hook_point}/{position}", (), wide=True)
            slot[begin : begin + len(means)] = direction

    def _slot(self, name: str, leading: tuple[int, ...], wide: bool = False) -> np.ndarray:
        if name not in self.tensors:
            last = (self.d,) if leading or wide else ()
            self.tensors[name] = np.zeros((*leading, len(self.layers), *last), dtype=np.float32)
        return self.tensors[name]

    def _add_plane(self, place: dict[str, Any], features: torch.Tensor, design: RowCodes) -> None:
        codes = np.unique(design.variant)
        names = [self.names[code] for code in codes]
        means = np.stack([features[torch.from_numpy(design.variant == code)].mean(0).numpy() for code in codes])
        left, singular, _ = np.linalg.svd(means - means.mean(0), full_matrices=False)
        coordinates = left * singular
        total = float((singular**2).sum())
        share = singular**2 / total if total > 0 else np.full(len(singular), np.nan)
        # The sign of an axis is arbitrary: control is put on the left of the first and below the second.
        first = names.index(CONTROL) if CONTROL in names else 0
        coordinates = coordinates * np.where(coordinates[first] > 0, -1.0, 1.0)
        for name, point in zip(names, coordinates, strict=True):
            self.plane.append(
                place
                | {
                    "variant": name,
                    "pc1": float(point[0]),
                    "pc2": float(point[1]) if len(point) > 1 else 0.0,
                    "explained1": float(share[0]),
                    "explained2": float(share[1]) if len(share) > 1 else 0.0,
                }
            )


def cross_fitted_cosines(sums: torch.Tensor, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines between directions over disjoint halves of blocks, mean over halvings, with 95 % jackknife intervals.

    Args:
        sums: sums of each variant's differences over each block of questions, (cells, blocks, variants, d).
        groups: how many independent groups of questions there are; below 20 there are no intervals.
        seed: of the halvings.

    Returns:
        cosine, low and high, each (cells, variants, variants); the diagonal is how well the two halves agree on one
        direction.
    """
    cells, blocks, variants, _ = sums.shape
    if blocks < LEAST_BLOCKS:
        nothing = np.full((cells, variants, variants), np.nan)
        return nothing, nothing, nothing
    generator = np.random.default_rng(seed)
    halves = np.stack([generator.permutation(np.arange(blocks) % 2) for _ in range(HALVINGS)])
    flat = sums.reshape(cells, blocks * variants, -1).double()
    inner = (flat @ flat.mT).numpy().reshape(cells, blocks, variants, blocks, variants)
    cosine, left_out = _cosines(inner, halves)
    if groups < LEAST_UNITS:
        nothing = np.full_like(cosine, np.nan)
        return cosine, nothing, nothing
    spread = (left_out - left_out.mean(1, keepdims=True)) ** 2
    error = np.sqrt((blocks - 1) / blocks * spread.sum(1)) * stats.t.ppf(1 - LEVEL / 2, blocks - 1)
    return cosine, np.maximum(cosine - error, -1.0), np.minimum(cosine + error, 1.0)


def _cosines(inner: np.ndarray, halves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosines between the variants' sums over two halves of the blocks, and those without each block in turn.

    Args:
        inner: inner products (cells, blocks, variants, blocks, variants).
        halves: the half of each block, 0 or 1, (halvings, blocks).

    Returns:
        (cells, variants, variants) and (cells, blocks, variants, variants).
    """
    masks = [(halves == half).astype(float) for half in (0, 1)]
    # Of each half's sums with every block's: (cells, halvings, variants, blocks, variants).
    first, second = (np.einsum("hb,cbuex->chuex", mask, inner, optimize=True) for mask in masks)
    across = np.einsum("chuex,he->chux", first, masks[1], optimize=True)
    squares = [np.einsum("chueu,he->chu", sums, mask) for sums, mask in zip((first, second), masks, strict=True)]
    in_first, in_second = (mask.T[:, :, None] for mask in masks)  # (blocks, halvings, 1)
    # A block leaves one of the halves, so only its own products with the other one go.
    across_without = across[:, None] - (
        in_first[..., None] * second.transpose(0, 3, 1, 4, 2) + in_second[..., None] * first.transpose(0, 3, 1, 2, 4)
    )
    within = np.einsum("cbubu->cbu", inner)[:, :, None]
    squares_without = [
        np.maximum(square[:, None] - member * (2 * np.einsum("chubu->cbhu", sums) - within), ROUNDING * square[:, None])
        for square, member, sums in zip(squares, (in_first, in_second), (first, second), strict=True)
    ]
    return _mean_cosine(across, *squares), _mean_cosine(across_without, *squares_without)


def _mean_cosine(across: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """From inner products (…, halvings, variants, variants) and squared lengths (…, halvings, variants)."""
    first, second = (np.sqrt(np.maximum(square, 1e-24)) for square in (first, second))
    one_way = across / (first[..., :, None] * second[..., None, :])
    cosine: np.ndarray = (0.5 * (one_way + np.swapaxes(one_way, -1, -2))).mean(-3)
    return cosine


def _pairs(design: RowCodes, variant: int, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a variant and of the reference on the same question and draw."""
    theirs = {
        (design.question[row], design.draw[row]): row for row in np.flatnonzero(design.variant == reference)
    }  # fmt: skip
    ours = [
        row
        for row in np.flatnonzero(design.variant == variant)
        if (design.question[row], design.draw[row]) in theirs
    ]  # fmt: skip
    return (
        np.array(ours, dtype=int),
        np.array([theirs[design.question[row], design.draw[row]] for row in ours], dtype=int),
    )


def _blocks(design: RowCodes) -> tuple[np.ndarray, int]:
    """Groups of questions dealt to at most 20 blocks: the block of each row, and how many there are."""
    groups, places = np.unique(design.group, return_inverse=True)
    count = min(LEAST_UNITS, len(groups))
    dealt = np.random.default_rng(design.seed).permutation(np.arange(len(groups)) % count)
    return dealt[places], count


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors along the last dimension, of unit length; zeros stay."""
    units: torch.Tensor = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)
    return units
