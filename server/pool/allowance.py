"""How many pairs of an experiment may go without an answer, and which have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emoprobe.config.experiment import Config
from emoprobe.conversations.samples import counterpart, experiment_pairs, judged_pairs
from emoprobe.results.activation_folder import METADATA, ActivationError, ActivationFolder
from emoprobe.results.judgement import Judgement
from emoprobe.results.layout import OUTCOMES_FILE, SCORES, Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import STATE, AgentState, GoldProbability, Measured, Scores

if TYPE_CHECKING:
    from server.pool.fleet import UnansweredError

Pair = tuple[str, str]
TRAJECTORY, OUTCOMES, ACTIVATIONS, TOKENS, SCORE, JUDGEMENT = (
    "trajectory", "outcomes", "activations", "tokens", "scores", "judgement"
)  # fmt: skip


class Allowance:
    """Counts the pairs of one experiment that are records of an error, and those that will be.

    A pair without trajectory and the same pair without activations count once, and until both are there. The records of
    earlier runs are read when the first pair fails, so a run in which all goes well reads none.

    Args:
        share: how many of them may fail, `generation.allowed_failures`.
        pairs: how many there are.
        recorded: finds those whose files on the disk say that they failed, and what of them did.
    """

    def __init__(self, share: float, pairs: int, recorded: Callable[[], Iterable[tuple[Pair, str]]]) -> None:
        self._share, self.pairs, self._recorded = share, pairs, recorded
        # A share such as 0.3 of 10 pairs must not lose one by rounding.
        self.allowed = int(share * pairs + 1e-9)
        self._failed: dict[Pair, set[str]] | None = None
        self._reading = asyncio.Lock()

    async def admits(self, variant: str, sample: str, what: str) -> bool:
        """Return whether something of a pair that failed may become a record of its error; if so, it is counted."""
        if not self.allowed:
            return False
        async with self._reading:
            if self._failed is None:
                self._failed = await asyncio.to_thread(self._read)
        # An older record of this very pair is what is being made anew.
        if len(self._failed.keys() - {(variant, sample)}) >= self.allowed:
            return False
        self._failed.setdefault((variant, sample), set()).add(what)
        return True

    def _read(self) -> dict[Pair, set[str]]:
        failed: dict[Pair, set[str]] = {}
        for pair, what in self._recorded():
            failed.setdefault(pair, set()).add(what)
        return failed

    def answered(self, variant: str, sample: str, what: str) -> None:
        """Note that something of a pair that may have failed was made; after a trajectory, all of it is made anew."""
        pair = (variant, sample)
        if self._failed is None or pair not in self._failed:
            return
        self._failed[pair].discard(what)
        if what == TRAJECTORY or not self._failed[pair]:
            del self._failed[pair]

    def words(self) -> str:
        """Return why a failure became no record, in the same words for every pair."""
        if not self._share:
            return "generation.allowed_failures is 0, so every pair needs an answer."
        recorded = len(self._failed or ())
        return (
            f"generation.allowed_failures = {self._share:g} allows {self.allowed} of {self.pairs} pairs to fail; "
            f"{recorded} have been recorded as failed already."
        )

    async def must_admit(self, variant: str, sample: str, what: str, error: UnansweredError) -> None:
        """Let something of a pair fail, where so many may.

        Raises:
            GaveUpError, RefusedError: too many have failed; the message says how many and how many may.
        """
        if not await self.admits(variant, sample, what):
            raise type(error)(f"{error}\n{self.words()}", error.attempts) from None


def pair_allowance(config: Config, layout: Layout) -> Allowance:
    """Return the allowance of the trajectories and captures of an experiment."""

    def recorded() -> Iterator[tuple[Pair, str]]:
        for pair in experiment_pairs(config):
            folder = layout.pair(*pair)
            failed = {
                TRAJECTORY: _trajectory_failed(folder),
                OUTCOMES: _record_failed(GoldProbability, folder / OUTCOMES_FILE),
                ACTIVATIONS: _capture_failed(layout.activations(*pair)),
                TOKENS: _capture_failed(layout.tokens(*pair)),
            }
            yield from ((pair, what) for what in failed if failed[what])

    return Allowance(config.generation.allowed_failures, len(experiment_pairs(config)), recorded)


def steering_allowance(config: Config, layout: Layout, steered: Iterable[tuple[str, str, str]]) -> Allowance:
    """Return the allowance of an experiment's steered trajectories and scores, each a condition, a variant and a name.

    Its pairs have `{condition}/{variant}` for a variant.
    """
    known = list(steered)

    def recorded() -> Iterator[tuple[Pair, str]]:
        for where, variant, name in known:
            folder = layout.steered(where, variant, name)
            failed = {TRAJECTORY: _trajectory_failed(folder), SCORE: _record_failed(Scores, folder / SCORES)}
            yield from (((f"{where}/{variant}", name), what) for what in failed if failed[what])

    return Allowance(config.generation.allowed_failures, len(known), recorded)


def judge_allowance(config: Config, layout: Layout) -> Allowance:
    """Return the allowance of the judgements of an experiment; its pairs have `{judge}/{variant}` for a variant."""
    known = judged_pairs(config)
    compared = {judge.outcome: judge.compare_with for judge in config.judges}

    def answered(judge: str, variant: str, name: str) -> bool:
        reference = compared[judge]
        pairs = [(variant, name)] if reference is None else [
            (variant, name), (reference, counterpart(config, reference, name))
        ]  # fmt: skip
        return not any(_trajectory_failed(layout.pair(*pair)) for pair in pairs)

    def recorded() -> set[tuple[Pair, str]]:
        return {
            ((f"{judge}/{variant}", name), JUDGEMENT)
            for judge, variant, name in known
            if _record_failed(Judgement, layout.judgement(judge, variant, name)) and answered(judge, variant, name)
        }

    return Allowance(config.generation.allowed_failures, len(known), recorded)


def _trajectory_failed(folder: Path) -> bool:
    """Return whether a trajectory is a record of its error."""
    if not (folder / STATE).exists():
        return False
    try:
        return AgentState.read_file(folder / STATE).error is not None
    except DamagedError:
        return False


def _capture_failed(folder: Path) -> bool:
    """Return whether an activation folder is a record of its error."""
    if not (folder / METADATA).exists():
        return False
    try:
        return ActivationFolder.read(folder).metadata.error is not None
    except ActivationError:
        return False


def _record_failed(record: type[Measured], path: Path) -> bool:
    """Return whether what a server measured of a trajectory is a record of its error."""
    if not path.exists():
        return False
    try:
        return record.read_file(path).error is not None
    except DamagedError:
        return False
