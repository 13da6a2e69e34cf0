"""How far a plan is, out of the files of its experiments: what `watch` shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.conversations.samples import captured_pairs, experiment_pairs, judged_pairs, token_pairs
from emoprobe.results.activation_folder import METADATA
from emoprobe.results.layout import OUTCOMES_FILE, SCORES, Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import MESSAGES, STATE, AgentState
from emoprobe.workflow.outcome import failed_jobs
from emoprobe.workflow.remembered import CHECKS
from emoprobe.workflow.steered import SteeredTargets

WINDOW = 120.0  # seconds over which a rate is taken


@dataclass(frozen=True)
class FileCount:
    """Files of one kind: when those that exist were made (seconds since the epoch), and how many there will be."""

    times: list[float]
    total: int

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.times)

    @property
    def left(self) -> int:
        """Number of files still to make."""
        return self.total - self.count

    def rate(self, now: float) -> float:
        """Files per second over the last minutes; 0 where there are too few to tell."""
        recent = [stamp for stamp in self.times if now - stamp <= WINDOW]
        return len(recent) / max(1.0, now - min(recent)) if len(recent) > 1 else 0.0


def together(parts: Iterable[FileCount]) -> FileCount:
    """Files of one kind in several places."""
    found = list(parts)
    return FileCount([stamp for part in found for stamp in part.times], sum(part.total for part in found))


@dataclass(frozen=True)
class VariantProgress:
    """The files of one variant of one experiment."""

    variant: str
    trajectories: FileCount
    activations: FileCount


@dataclass(frozen=True)
class ExperimentProgress:
    """The files of one experiment, and what the last job failed to make, latest first, each with a reason.

    `steered` and `scores` are of the steered trajectories, `tokens` the captures of every token, `outcomes` what
    graders ask the model, `judgements` those of models that grade; none in all where nothing is steered, no features
    are looked for, or no grader does.
    """

    name: str
    variants: list[VariantProgress]
    failures: list[tuple[str, str]]
    steered: FileCount = FileCount([], 0)
    scores: FileCount = FileCount([], 0)
    tokens: FileCount = FileCount([], 0)
    outcomes: FileCount = FileCount([], 0)
    judgements: FileCount = FileCount([], 0)

    @property
    def trajectories(self) -> FileCount:
        """Those of all variants."""
        return together(variant.trajectories for variant in self.variants)

    @property
    def activations(self) -> FileCount:
        """Those of all variants; none in all where nothing is captured."""
        return together(variant.activations for variant in self.variants)


@dataclass(frozen=True)
class PlanProgress:
    """A plan as it was at `now`. Rates are files per second; `eta` is in seconds, None where it is unknown."""

    now: float
    experiments: list[ExperimentProgress]
    trajectory_rate: float
    capture_rate: float
    eta: float | None
    last_file: float | None


def snapshot(configs: Mapping[str, Config], results: Path, now: float | None = None) -> PlanProgress:
    """Look at the files of a plan.

    Args:
        configs: its experiments by name.
        results: the folder in which the experiments' folders lie.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    experiments = [_experiment(config, Layout.of(name, results)) for name, config in configs.items()]
    trajectories = together(experiment.trajectories for experiment in experiments)
    activations = together(experiment.activations for experiment in experiments)
    steered = together(experiment.steered for experiment in experiments)
    scores = together(experiment.scores for experiment in experiments)
    tokens = together(experiment.tokens for experiment in experiments)
    outcomes = together(experiment.outcomes for experiment in experiments)
    judgements = together(experiment.judgements for experiment in experiments)
    rates = trajectories.rate(now), activations.rate(now)
    # Nothing has been captured yet while trajectories are made: take it to go as fast, and steering as well.
    captures = rates[1] or rates[0]
    steering = steered.rate(now) or captures
    return PlanProgress(
        now=now,
        experiments=experiments,
        trajectory_rate=rates[0],
        capture_rate=rates[1],
        eta=_eta(
            [
                (trajectories.left, rates[0]),
                (outcomes.left, outcomes.rate(now) or rates[0]),
                (judgements.left, judgements.rate(now) or rates[0]),
                (activations.left, captures),
                (steered.left, steering),
                (scores.left, scores.rate(now) or steering),
                (tokens.left, tokens.rate(now) or captures),
            ]
        ),
        last_file=max(
            (
                stamp
                for made in (trajectories, outcomes, judgements, activations, steered, scores, tokens)
                for stamp in made.times
            ),
            default=None,
        ),
    )


def _experiment(config: Config, layout: Layout) -> ExperimentProgress:
    pairs, captured = experiment_pairs(config), captured_pairs(config)
    variants = [
        VariantProgress(
            variant,
            _made([layout.pair(*pair) / MESSAGES for pair in pairs if pair[0] == variant]),
            _made([layout.activations(*pair) / METADATA for pair in captured if pair[0] == variant]),
        )
        for variant in config.variants
    ]
    steered = [layout.steered(*each) for each in _steered(config, layout)]
    return ExperimentProgress(
        layout.root.name,
        variants,
        _failures(layout),
        _made([folder / MESSAGES for folder in steered]),
        _made([folder / SCORES for folder in steered]),
        _made([layout.tokens(*pair) / METADATA for pair in token_pairs(config)]),
        _made([layout.pair(*pair) / OUTCOMES_FILE for pair in pairs] if config.asks_model else []),
        _made([layout.judgement(*name) for name in judged_pairs(config)]),
    )


def _steered(config: Config, layout: Layout) -> Iterable[tuple[str, str, str]]:
    """An experiment's steered trajectories."""
    return SteeredTargets.of(config, layout, CHECKS).grid.trajectories if config.steering.enabled else ()


def _made(paths: Iterable[Path]) -> FileCount:
    """Files of one kind, by all that there will be."""
    wanted = list(paths)
    times = []
    for path in wanted:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return FileCount(times, len(wanted))


def _eta(parts: Iterable[tuple[int, float]]) -> float | None:
    """Seconds for so many files at such rates, one kind after the other."""
    seconds = 0.0
    for left, rate in parts:
        if left and not rate:
            return None
        seconds += left / rate if left else 0.0
    return seconds


def _failures(layout: Layout) -> list[tuple[str, str]]:
    """The jobs whose last run failed, latest first, each with the first line of the reason."""
    failures = []
    for kind, name, path in failed_jobs(layout):
        with contextlib.suppress(OSError):  # the next job of that name has removed it
            reason = path.read_text(encoding="utf-8", errors="replace").strip().partition("\n")[0]
            failures.append((path.stat().st_mtime, f"{kind} {name}", reason))
    return [(name, reason) for _, name, reason in sorted(failures, reverse=True)]


def token_rates(configs: Mapping[str, Config], results: Path, now: float) -> dict[str, float]:
    """Generated tokens per second of each worker, from the trajectories of the last minutes."""
    tokens: dict[str, int] = {}
    first: dict[str, float] = {}
    for path in _recent_states(configs, results, now):
        try:
            state, made = AgentState.read_file(path), path.stat().st_mtime
        except (OSError, DamagedError):
            continue
        worker, seconds = state.worker_id, state.timing.seconds
        if worker is not None and seconds is not None:
            tokens[worker] = tokens.get(worker, 0) + (state.usage.completion_tokens or 0)
            first[worker] = min(first.get(worker, now), made - seconds)
    return {worker: count / max(1.0, now - first[worker]) for worker, count in tokens.items()}


def _recent_states(configs: Mapping[str, Config], results: Path, now: float) -> Iterable[Path]:
    """The state of each trajectory that was made in the last minutes."""
    for name, config in configs.items():
        for variant in config.variants:
            for path in Layout.of(name, results).pair(variant, "").glob(f"*/{STATE}"):
                try:
                    recent = now - path.stat().st_mtime <= WINDOW
                except OSError:
                    continue
                if recent:
                    yield path
