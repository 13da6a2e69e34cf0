"""What a figure is drawn from: the tables of an experiment and a little of its config."""

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
    """An experiment, or a study, which has no config of its own, as the functions that draw see it."""

    layout: Layout
    config: Config | None = None

    @property
    def _config(self) -> Config:
        if self.config is None:
            raise LookupError("a study has no config of its own")
        return self.config

    def table(self, name: str) -> pd.DataFrame:
        """A table of the experiment.

        Raises:
            FileNotFoundError: it does not have one of that name.
        """
        return read_table(self.layout.root, name)

    @property
    def valences(self) -> dict[str, str | None]:
        """The valence of each variant."""
        return {name: variant.valence for name, variant in self._config.variants.items()}

    @property
    def position(self) -> str:
        """The captured position that figures with room for one show."""
        captured = [str(position) for position in self._config.capture.positions]
        return next((name for name in PREFERRED if name in captured), captured[0])
