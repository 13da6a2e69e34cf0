"""Directions of the variants: differences of means, probe weights, their cosines, and the plane the variants span."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.targets import Target
from emoprobe.config.names import CONTROL

if TYPE_CHECKING:
    from emoprobe.analysis.probes.experiment import Source


@dataclass
class Directions:
    """Gathers directions cell by cell.

    `tensors` maps `diff_means/{hook point}/{position}` to (n_variants without control, n_layers, d) and
    `probe/{target}/{hook point}/{position}` to (n_classes, n_layers, d), all of unit length (0 where there is none).
    """

    variants: list[str]
    rows: dict[str, dict[str, int]]
    shape: tuple[int, int]
    layers: list[int]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    cosines: list[dict[str, Any]] = field(default_factory=list)
    plane: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def empty(cls, table: pd.DataFrame, source: Source) -> Directions:
        """Nothing gathered yet, for the rows of a table."""
        rows = {
            str(variant): dict(zip(group["sample_id"], group.index.to_numpy(), strict=True))
            for variant, group in table.reset_index(drop=True).groupby("variant", sort=False)
        }
        others = [variant for variant in rows if variant != CONTROL]
        return cls(others, rows, (len(source.layers), source.d), source.layers)

    def add(self, hook_point: str, number: int, here: dict[str, torch.Tensor], empty: dict[str, np.ndarray]) -> None:
        """Take in one layer: position → (n, d)."""
        if CONTROL not in self.rows:
            return
        for position, features in here.items():
            place = {"hook_point": hook_point, "position": position, "layer": self.layers[number]}
            means = np.zeros((len(self.variants), self.shape[1]), dtype=np.float32)
            explained = []
            for index, variant in enumerate(self.variants):
                shared = [sample for sample in self.rows[variant] if sample in self.rows[CONTROL]]
                ours = torch.tensor([self.rows[variant][sample] for sample in shared])
                theirs = torch.tensor([self.rows[CONTROL][sample] for sample in shared])
                differences = (features[ours] - features[theirs]).numpy() if shared else means[:1]
                means[index] = differences.mean(0)
                total = float((differences**2).sum())
                direction = _unit(means[index][None])[0]
                explained.append(float(((differences @ direction) ** 2).sum()) / total if total > 0 else float("nan"))
            unit = _unit(means)
            self._slot(f"diff_means/{hook_point}/{position}", len(self.variants))[:, number] = unit
            self._add_cosines(place, unit, means, explained)
            self._add_plane(place, features)

    def add_probe(self, target: Target, hook_point: str, number: int, position: str, weights: np.ndarray) -> None:
        """Take in the weights of a probe, (columns, d); of two classes the second one has the only column."""
        name = f"probe/{target.name}/{hook_point}/{position}"
        self.classes[target.name] = target.classes if len(weights) > 1 else target.classes[1:]
        self._slot(name, len(weights))[:, number] = _unit(weights)

    def _slot(self, name: str, count: int) -> np.ndarray:
        if name not in self.tensors:
            self.tensors[name] = np.zeros((count, *self.shape), dtype=np.float32)
        return self.tensors[name]

    def _add_cosines(self, place: dict[str, Any], unit: np.ndarray, means: np.ndarray, explained: list[float]) -> None:
        found = unit @ unit.T
        norms = np.linalg.norm(means, axis=1)
        for row, variant in enumerate(self.variants):
            for column, other in enumerate(self.variants):
                own = row == column
                self.cosines.append(
                    place
                    | {
                        "variant": variant,
                        "other": other,
                        "cosine": float(found[row, column]),
                        "norm": float(norms[row]) if own else None,
                        "explained": explained[row] if own else None,
                    }
                )

    def _add_plane(self, place: dict[str, Any], features: torch.Tensor) -> None:
        names = list(self.rows)
        means = np.stack([features[torch.tensor(list(self.rows[name].values()))].mean(0).numpy() for name in names])
        centred = means - means.mean(0)
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        coordinates = left * singular
        total = float((singular**2).sum())
        share = singular**2 / total if total > 0 else np.full(len(singular), np.nan)
        # The sign of an axis is arbitrary: control is put on the left of the first and below the second.
        signs = np.where(coordinates[names.index(CONTROL)] > 0, -1.0, 1.0)
        for row, name in enumerate(names):
            point = coordinates[row] * signs
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


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of unit length; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.where(norms > 0, norms, 1.0)
    return found
