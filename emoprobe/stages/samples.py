"""Draw the samples of experiments."""

from __future__ import annotations

from pathlib import Path

from emoprobe.config.files import load_config
from emoprobe.conversations.samples import Drawer
from emoprobe.results.layout import Layout
from emoprobe.results.record import what_to_do


class SampleError(OSError):
    """Raised where a file of the results cannot be read or written; the message says what to do."""


class SampleWriter:
    """Draw samples and write their files. The data set of an experiment is opened once."""

    def __init__(self) -> None:
        self._drawers: dict[Path, Drawer] = {}

    def write(self, config_path: Path, folder: Path, sample_id: str) -> None:
        """Draw one sample and write its file.

        Args:
            config_path: the resolved config of the experiment.
            folder: the folder of the experiment.
            sample_id: the id of the sample.

        Raises:
            ConfigError: the config cannot be read.
            DataError: the sample cannot be drawn.
            SampleError: its file cannot be written.
        """
        if config_path not in self._drawers:
            config = load_config(config_path)
            self._drawers[config_path] = Drawer(config.dataset, config.experiment.seed)
        sample = self._drawers[config_path].named(sample_id)
        try:
            sample.write(Layout(folder).sample(sample_id))
        except OSError as error:
            reason = f"a file of {folder} cannot be read or written: {error.strerror or error}"
            raise SampleError(f"{reason}\nWhat to do: {what_to_do(error)}") from None
