"""A finished experiment as one object, for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from emoprobe.analysis.outcomes import PRIMARY_MEASURE
from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.report.figures import FIGURES
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.record import read_json
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import read_messages

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from emoprobe.results.activations import Activations

# Columns that name a contrast in the tables of two experiments.
CONTRAST = ["variant", "reference", "measure"]


class Results:
    """A finished experiment: its trajectories, tables, statements, activations, directions and figures.

    Nothing is read before it is used. A file that the folder lacks raises FileNotFoundError, a table or figure that it
    lacks AttributeError (KeyError for `tables[...]`) with those that are there, and a damaged file
    `emoprobe.results.record.DamagedError`.

    Args:
        folder: of the experiment, such as `results/pilot`, or any folder that contains
            `VARIANT/SAMPLE/trajectory.jsonl`.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._layout = Layout(self.folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; give the folder of an experiment, such as results/pilot")

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}: {len(self.tables)} tables, {len(dir(self.plot))} figures)"

    @cached_property
    def config(self) -> Config:
        """Configuration of the experiment, with every default written out."""
        return load_config(self.folder)

    @cached_property
    def trajectories(self) -> pd.DataFrame:
        """One row for each trajectory, graded again from its files, with its `messages`: a list of role and content.

        `variant`, `sample_id` and `draw` identify a row, here and in `activations(...).index`. `tables.trajectories`
        has the other columns as they were when the run ended.
        """
        table = load_trajectories(self.folder)
        messages = [
            read_messages(self._layout.pair(variant, draw_id(sample, draw)) / "trajectory.jsonl")
            for variant, sample, draw in zip(table["variant"], table["sample_id"], table["draw"], strict=True)
        ]
        return table.assign(messages=pd.Series(messages, index=table.index, dtype=object))

    @cached_property
    def tables(self) -> Tables:
        """The tables, by name: `tables.accuracy` or `tables["accuracy"]`."""
        return Tables(self.folder)

    @cached_property
    def statements(self) -> pd.DataFrame:
        """The sentences of the report: `about`, `verdict`, `text`, `estimate`, `low`, `high`, `p` and `n`."""
        path = self._layout.report
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; run the target `report` of the experiment")
        return pd.DataFrame(read_json(path)["statements"])

    @cached_property
    def directions(self) -> dict[str, np.ndarray]:
        """Directions of the probes, by key, as `tables.probes` and `docs/files.md` describe them."""
        from emoprobe.results.activations import read_tensors

        return read_tensors(self._layout.directions())

    def activations(
        self,
        hook_point: str,
        position: str | int,
        *,
        variants: Sequence[str] | None = None,
        samples: Sequence[str] | None = None,
        layers: Sequence[int] | None = None,
    ) -> Activations:
        """Read the activations at one hook point and position, of shape (n, n_layers, d_model).

        Args:
            hook_point: such as `resid_post`.
            position: such as `last_prompt`, or the index of a token.
            variants: the variants to read; None: all.
            samples: the samples to read; None: all.
            layers: the layers to read; None: all.

        Raises:
            ActivationError: no folder has them, or one is damaged.
        """
        from emoprobe.results.activations import load_activations

        return load_activations(self.folder, hook_point, position, variants=variants, samples=samples, layers=layers)

    def compare(self, other: Results | str | Path) -> pd.DataFrame:
        """Return each contrast that this experiment shares with another, with the numbers of both.

        The type of value, difference, interval and verdict of this one have the suffix `_left`, those of the other
        `_right`. The comparison describes; it tests nothing.

        Args:
            other: another experiment, or its folder.
        """
        there = other if isinstance(other, Results) else Results(other)
        columns = [*CONTRAST, "value", "n", "difference", "low", "high", "verdict"]
        left, right = (read_table(entry.folder, "paired_tests")[columns] for entry in (self, there))
        both = left.merge(right, on=CONTRAST, suffixes=("_left", "_right"))
        return both.sort_values(
            "measure", key=lambda column: column != PRIMARY_MEASURE, kind="stable", ignore_index=True
        )

    @cached_property
    def plot(self) -> Plots:
        """The figures of the report as functions that return a Matplotlib figure: `plot.accuracy()`."""
        return Plots(self)


class Tables(Mapping[str, pd.DataFrame]):
    """The tables of an experiment, each read when it is used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("tables/*.parquet"))

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._names():
            raise KeyError(f"{name} (tables there: {', '.join(self._names()) or 'none'})")
        return read_table(self._folder, name)

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name.startswith("_"):  # asked for while a copy is made, before there is a folder
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._names()]

    def __repr__(self) -> str:
        return f"Tables({', '.join(self)})"


class Plots:
    """The figures that an experiment has the tables for."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __dir__(self) -> list[str]:
        there = set(self._results.tables)
        return [name for name, figure in FIGURES.items() if there.issuperset(figure.tables)]

    def __getattr__(self, name: str) -> Callable[[], Figure]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in dir(self):
            raise AttributeError(f"there is no figure {name} (figures: {', '.join(dir(self)) or 'none'})")

        def draw() -> Figure:
            from emoprobe.report.figures.view import ExperimentView

            return FIGURES[name].draw(ExperimentView(Layout(self._results.folder), self._results.config))

        draw.__name__, draw.__doc__ = name, FIGURES[name].caption.replace("``", "")
        return draw

    def __repr__(self) -> str:
        return f"Plots({', '.join(dir(self))})"
