"""How many pairs of an experiment may go without an answer, and which have."""

from __future__ import annotations

import asyncio
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.results.activation_folder import METADATA, ActivationError, ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, AgentState
from emoprobe.tasks.samples import experiment_pairs

Pair = tuple[str, str]


class Allowance:
    """Counts the pairs of one experiment that are records of an error, and those that will be.

    A pair without trajectory and the same pair without activations count once. The records of earlier runs are read
    when the first pair fails, so a run in which all goes well reads none.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self._config, self._layout = config, layout
        self.pairs = len(config.variants) * config.dataset.samples * config.generation.draws
        # A share such as 0.3 of 10 pairs must not lose one by rounding.
        self.allowed = int(config.generation.allowed_failures * self.pairs + 1e-9)
        self._failed: set[Pair] | None = None
        self._reading = asyncio.Lock()

    async def admits(self, variant: str, sample: str) -> bool:
        """Whether a pair that failed may become a record of its error; if so, it is counted."""
        if not self.allowed:
            return False
        async with self._reading:
            if self._failed is None:
                self._failed = await asyncio.to_thread(self._recorded)
        # An older record of this very pair is what is being made anew.
        if len(self._failed - {(variant, sample)}) >= self.allowed:
            return False
        self._failed.add((variant, sample))
        return True

    def answered(self, variant: str, sample: str) -> None:
        """A pair that had failed has been made anew."""
        if self._failed is not None:
            self._failed.discard((variant, sample))

    def words(self) -> str:
        """Why a failure became no record, in the same words for every pair."""
        share = self._config.generation.allowed_failures
        if not share:
            return "generation.allowed_failures is 0, so every pair needs an answer."
        recorded = len(self._failed or ())
        return (
            f"generation.allowed_failures = {share:g} allows {self.allowed} of {self.pairs} pairs to fail; "
            f"{recorded} have been recorded as failed already."
        )

    def _recorded(self) -> set[Pair]:
        """The pairs of this experiment whose files on the disk say that they failed."""
        return {
            (variant, sample)
            for variant, sample in experiment_pairs(self._config)
            if _trajectory_failed(self._layout.pair(variant, sample))
            or _capture_failed(self._layout.activations(variant, sample))
        }


def _trajectory_failed(folder: Path) -> bool:
    """Whether a trajectory is a record of its error."""
    if not (folder / STATE).exists():
        return False
    try:
        return AgentState.read_file(folder / STATE).error is not None
    except DamagedError:
        return False


def _capture_failed(folder: Path) -> bool:
    """Whether an activation folder is a record of its error."""
    if not (folder / METADATA).exists():
        return False
    try:
        return ActivationFolder.read(folder).metadata.error is not None
    except ActivationError:
        return False
