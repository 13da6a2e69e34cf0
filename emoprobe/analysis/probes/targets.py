"""The targets of the probes: each gathers its cells, chooses one, and ends in one test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emoprobe.analysis.probes.auroc import interval
from emoprobe.analysis.probes.cell_choice import CellChoice, Largest, Place
from emoprobe.analysis.probes.correct import AddedResult, CorrectResult
from emoprobe.analysis.probes.position import ProbedPosition
from emoprobe.analysis.probes.probe_design import ProbeTest, conclude_probe, correct_test, valence_test, within_test
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.probes.valence import ValenceResult
from emoprobe.analysis.probes.variant import VariantResult
from emoprobe.analysis.probes.within import WithinResult, mixed_questions
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.science.analysis import Probes

NULL_QUANTILE = 1 - LEVEL


@dataclass
class ValenceTarget:
    """Negative against positive; see `valence`.

    Positions where confounds cannot be separated from valence are left out of the test: `inseparable` are the confounds
    by position, and `others` chooses among their cells, which describe where there is no other.
    """

    design: RowCodes
    settings: Probes
    choice: CellChoice = field(default_factory=CellChoice)
    largest: Largest = field(default_factory=Largest)
    others: CellChoice = field(default_factory=CellChoice)
    controlled: dict[str, list[str]] = field(default_factory=dict)
    inseparable: dict[str, list[str]] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    reason: str = "no variant has activations"

    def add(self, result: ValenceResult, places: list[Place], position: ProbedPosition, d: int) -> None:
        """Take in some cells of a position, of `d` features."""
        graded, nuisance, words = position.valence, position.valence_nuisance, position.valence_words
        assert graded is not None
        assert nuisance is not None
        assert words is not None
        confounds = graded.confounds
        self.controlled[position.name] = confounds.names if confounds else []
        separable = confounds is None or not confounds.inseparable
        if confounds is not None and confounds.inseparable:
            self.inseparable[position.name] = confounds.inseparable
        else:
            self.largest.add(result.permuted)
        shape = result.by_pair.shape
        (self.choice if separable else self.others).add(
            places,
            result.choice,
            {
                "auroc": result.by_pair,
                "nuisance": np.broadcast_to(nuisance.by_pair, shape),
                "words": np.broadcast_to(words.by_pair, shape),
                "diff_means": result.diff_means,
            },
        )
        level = float(nuisance.by_pair.mean())
        for number, place in enumerate(places):
            area = float(result.permuted[number, 0])
            self.cells.append(
                place
                | {
                    "target": "valence",
                    "n": len(graded.rows),
                    "samples": len(np.unique(graded.design.question)),
                    "d": d,
                    "classes": 2,
                    "auroc": area,
                    "null_high": float(np.quantile(result.permuted[number], NULL_QUANTILE)),
                    "diff_means_auroc": float(result.diff_means[number].mean()),
                    "nuisance_auroc": level,
                    "gain": area - level,
                    "p": area if separable else None,
                }
            )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `probes`."""
        if not self.cells:
            return [{"target": "valence", "skipped": self._why()}]
        return [row | {"p": None if row["p"] is None else self.largest.p(row["p"])} for row in self.cells]

    def test(self) -> dict[str, Any]:
        """The row of the table `probe_tests`."""
        plan = self._plan
        row: dict[str, Any] = _planned(plan) | {"cells": len(self.cells)}
        if not self.cells:
            return _judged(row | {"reason": plan.reason or self._why()})
        tested = self.largest.maximum is not None
        choice = self.choice if tested else self.others
        p = self.largest.p() if tested else None
        positions = {place["position"] for place in choice.places.values()} or self.controlled.keys()
        controlled = dict.fromkeys(
            name for position in self.controlled for name in self.controlled[position] if position in positions
        )
        apart = (f"{', '.join(names)} at {position}" for position, names in self.inseparable.items())
        row |= _chosen(choice) | {
            "p": p,
            "p_permuted": p,
            "n": self.cells[0]["n"],
            "words_auroc": choice.mean("words"),
            "controlled": ", ".join(controlled),
            "inseparable": "; ".join(apart) or None,
        }
        return _judged(row)

    @property
    def _plan(self) -> ProbeTest:
        valence, stratum = self.design.valence, self.design.stratum
        strata = [
            (int((valence[stratum == code] < 0).sum()), int((valence[stratum == code] > 0).sum()))
            for code in np.unique(stratum[valence != 0])
        ]
        return valence_test(strata or [(0, 0)], self.settings.permutations)

    def _why(self) -> str:
        return self._plan.reason or self.reason


@dataclass
class CorrectTarget:
    """Right against wrong answers; see `correct`."""

    design: RowCodes
    settings: Probes
    choice: CellChoice = field(default_factory=CellChoice)
    largest: Largest = field(default_factory=Largest)
    finished: CellChoice = field(default_factory=CellChoice)
    largest_finished: Largest = field(default_factory=Largest)
    cells: list[dict[str, Any]] = field(default_factory=list)
    any_truncated: bool = False
    reason: str = "no position has enough graded answers"

    def add(
        self, result: CorrectResult, diff_means: np.ndarray, added: AddedResult, untruncated: AddedResult | None,
        places: list[Place], position: ProbedPosition, d: int,
    ) -> None:  # fmt: skip
        """Take in some cells of a position, of `d` features."""
        rows = position.correct
        assert rows is not None
        self.largest.add(added.statistic)
        nuisance = np.broadcast_to(rows.nuisance_areas(), result.areas.shape)
        shape = (*result.areas.shape, rows.design.groups)
        self.choice.add(
            places,
            added.choice,
            {
                "auroc": result.areas,
                "nuisance": nuisance,
                "diff_means": diff_means,
                "added": added.added,
                "influence": np.broadcast_to(result.influence[:, None], shape),
                "added_influence": np.broadcast_to(added.influence[:, None], shape),
            },
        )
        self.any_truncated |= position.any_truncated
        if untruncated is not None:
            self.largest_finished.add(untruncated.statistic)
            self.finished.add(places, untruncated.choice, {"added": untruncated.added})
        groups = np.unique(rows.design.group)
        for number, place in enumerate(places):
            area = float(np.nanmean(result.areas[number]))
            low, high, _ = interval(area, result.influence[number, groups], rows.design.folds)
            level = float(np.nanmean(nuisance[number]))
            self.cells.append(
                place
                | {
                    "target": "correct",
                    "n": len(rows.rows),
                    "samples": len(np.unique(rows.design.question)),
                    "d": d,
                    "classes": 2,
                    "auroc": area,
                    "auroc_low": low,
                    "auroc_high": high,
                    "null_high": float(np.nanquantile(result.permuted[number], NULL_QUANTILE)),
                    "diff_means_auroc": float(np.nanmean(diff_means[number])),
                    "nuisance_auroc": level,
                    "gain": area - level,
                    "added": float(np.nanmean(added.added[number])),
                    "p": float(added.statistic[number, 0]),
                }
            )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `probes`."""
        if not self.cells:
            return [{"target": "correct", "skipped": self._why()}]
        return [row | {"p": self.largest.p(row["p"])} for row in self.cells]

    def test(self) -> dict[str, Any]:
        """The row of the table `probe_tests`."""
        known = self.design.correct >= 0
        groups = np.unique(self.design.group[known])
        plan = correct_test(len(groups), self.settings.permutations, self.design.folds)
        row: dict[str, Any] = _planned(plan) | {
            "cells": len(self.cells),
            "classes": f"{(self.design.correct == 0).sum()} wrong, {(self.design.correct == 1).sum()} correct",
        }
        if not self.cells:
            return _judged(row | {"reason": plan.reason or self._why()})
        p, p_finished = self.largest.p(), self.largest_finished.p()
        row |= _chosen(self.choice) | {
            "p_permuted": p,
            "p_untruncated": p_finished,
            "added": self.choice.mean("added"),
            "added_untruncated": self.finished.mean("added"),
            "n": self.cells[0]["n"],
        }
        area, gain = (
            interval(row[name], influence_of_groups(self.choice.values[values], self.design, groups), self.design.folds)
            for name, values in (("auroc", "influence"), ("added", "added_influence"))
        )
        row |= {"auroc_low": area.low, "auroc_high": area.high, "added_low": gain.low, "added_high": gain.high}
        if not plan.reachable:
            return _judged(row)
        if self.any_truncated and not np.isfinite(p_finished):
            return _judged(row | {"reason": "the answers that were not cut off have too few of one class"})
        # All of these tests have to reject, so that nothing is found whose interval includes 0.
        tests, gains = [p, gain.p], [row["added"]]
        if self.any_truncated:
            tests.append(p_finished)
            gains.append(row["added_untruncated"])
        row["p"] = float(np.nanmax(tests)) if min(gains) > 0 else 1.0
        return _judged(row)

    def _why(self) -> str:
        return self.reason


@dataclass
class WithinTarget:
    """Right against wrong answers to the same question; see `within`."""

    design: RowCodes
    settings: Probes
    choice: CellChoice = field(default_factory=CellChoice)
    largest: Largest = field(default_factory=Largest)
    cells: int = 0
    n: int = 0
    mixed: int = 0

    def add(self, result: WithinResult, places: list[Place], position: ProbedPosition) -> None:
        """Take in some cells of a position."""
        within = position.within
        assert within is not None
        self.cells += len(places)
        self.n, self.mixed = len(within.correct.rows), max(self.mixed, within.mixed)
        self.largest.add(result.statistic)
        shape = (*result.areas.shape, self.design.groups)
        self.choice.add(
            places,
            result.choice,
            {
                "auroc": result.areas,
                "nuisance": np.broadcast_to(result.nuisance, result.areas.shape),
                "diff_means": np.full_like(result.areas, np.nan),
                "added": result.added,
                "added_influence": np.broadcast_to(result.influence[:, None], shape),
            },
        )

    def test(self) -> dict[str, Any]:
        """The row of the table `probe_tests`."""
        plan = within_test(self.mixed if self.cells else mixed_questions(self.design), self.settings.permutations)
        row: dict[str, Any] = _planned(plan) | {"cells": self.cells}
        if not self.cells:
            return _judged(row | {"reason": plan.reason or "there is no probe of correctness in or after the answer"})
        p = self.largest.p()
        row |= _chosen(self.choice) | {"p_permuted": p, "added": self.choice.mean("added"), "n": self.n}
        influence = influence_of_groups(
            self.choice.values["added_influence"], self.design, np.unique(self.design.group)
        )
        gain = interval(row["added"], influence[influence != 0], self.design.folds)
        row |= {"added_low": gain.low, "added_high": gain.high}
        row["p"] = float(np.nanmax([p, gain.p])) if row["added"] > 0 else 1.0
        return _judged(row)


@dataclass
class VariantTarget:
    """The variant as a target: a manipulation check without a test; see `variant`."""

    design: RowCodes
    settings: Probes
    cells: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """Reason for the absence of a probe; None where there is one."""
        if len(self.design.variants) < 2:
            return "there is one variant only"
        return "fewer than three groups of questions" if self.design.folds < 3 else None

    def add(self, result: VariantResult, places: list[Place], position: ProbedPosition, d: int) -> None:
        """Take in some cells of a position, of `d` features."""
        design = position.design
        for number, place in enumerate(places):
            control = None if result.control_accuracy is None else float(result.control_accuracy[number])
            accuracy = float(result.accuracy[number])
            self.cells.append(
                place
                | {
                    "target": "variant",
                    "n": len(design),
                    "samples": len(np.unique(design.question)),
                    "d": d,
                    "classes": len(np.unique(design.variant)),
                    "auroc": float(result.areas[number]),
                    "diff_means_auroc": float(result.diff_means[number]),
                    "accuracy": accuracy,
                    "control_accuracy": control,
                    "selectivity": None if control is None else accuracy - control,
                }
            )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `probes`."""
        return self.cells or [{"target": "variant", "skipped": self.reason}]

    def test(self) -> dict[str, Any]:
        """The row of the table `probe_tests`: the best cell, for what it is worth."""
        row: dict[str, Any] = {
            "target": "variant",
            "reason": self.reason or "a manipulation check: prompts that differ are bound to be told apart",
            "unit": "question",
            "units": len(np.unique(self.design.group)),
            "cells": len(self.cells),
        }
        if self.cells:
            best = max(self.cells, key=lambda cell: float(cell["auroc"]))
            row |= {name: best[name] for name in ("hook_point", "position", "layer", "auroc", "diff_means_auroc", "n")}
        return _judged(row)


def influence_of_groups(values: np.ndarray, design: RowCodes, groups: np.ndarray) -> np.ndarray:
    """The influence of each group, from the cell that was chosen without its fold, out of values (folds, groups)."""
    fold_of = np.zeros(design.groups, dtype=int)
    fold_of[design.group] = design.fold
    influence: np.ndarray = np.nan_to_num(values[fold_of[groups], groups])
    return influence


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"verdict": conclude_probe(row).verdict.value}


def _planned(plan: ProbeTest) -> dict[str, Any]:
    classes = plan.classes and ", ".join(f"{count} {name}" for name, count in plan.classes.items())
    return {
        "target": plan.target,
        "reason": plan.reason,
        "unit": plan.unit,
        "units": plan.units,
        "classes": classes,
        "permutations": plan.permutations,
        "exact": plan.exact,
        "smallest_p": plan.smallest_p,
    }


def _chosen(choice: CellChoice) -> dict[str, Any]:
    auroc, nuisance = choice.mean("auroc"), choice.mean("nuisance")
    return choice.commonest | {
        "agreement": choice.agreement,
        "auroc": auroc,
        "nuisance_auroc": nuisance,
        "gain": auroc - nuisance,
        "diff_means_auroc": choice.mean("diff_means"),
    }
