"""What a figure is drawn from: the tables of an experiment or study, and a little of an experiment's config."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table

# The position that figures with room for one show: the whole answer if it was captured.
PREFERRED = ("response_mean", "last_prompt")


@dataclass(frozen=True)
class View:
    """The tables of a study, or of an experiment."""

    layout: Layout

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        return read_table(self.layout.root, name)


@dataclass(frozen=True)
class ExperimentView(View):
    """An experiment, as the functions that draw see it."""

    config: Config

    @property
    def valences(self) -> dict[str, str | None]:
        """The valence of each variant."""
        return {name: variant.valence for name, variant in self.config.variants.items()}

    @property
    def position(self) -> str:
        """The captured position that figures with room for one show."""
        captured = [str(position) for position in self.config.capture.positions]
        return next((name for name in PREFERRED if name in captured), captured[0])
