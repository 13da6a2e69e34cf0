"""How far a run is, out of its files and its pool: what `watch` shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.results.activation_folder import METADATA
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import MESSAGES, STATE, AgentState
from emoprobe.tasks.samples import sample_ids

WINDOW = 120.0  # seconds over which a rate is taken


@dataclass(frozen=True)
class VariantProgress:
    """Files of one variant: how many there are, and how many there will be."""

    variant: str
    trajectories: int
    activations: int
    total: int


@dataclass(frozen=True)
class Progress:
    """A snapshot. Rates are files per second over the last minutes; `eta` is in seconds, None where it is unknown."""

    variants: list[VariantProgress]
    trajectory_rate: float
    capture_rate: float
    eta: float | None
    last_file: float | None
    failures: list[tuple[str, str]]
    pool: dict[str, Any] | None


def snapshot(layout: Layout, config: Config, pool: dict[str, Any] | None, now: float | None = None) -> Progress:
    """Look at an experiment's files.

    Args:
        layout: the experiment.
        config: its config.
        pool: what the pool says of itself, None where none answers.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    samples = sample_ids(config.dataset)
    variants: list[VariantProgress] = []
    stamps: dict[str, list[float]] = {"generate": [], "capture": []}
    for variant in config.variants:
        made = _times(layout.root / variant, MESSAGES, samples)
        captured = _times(layout.root / "activations" / variant, METADATA, samples)
        stamps["generate"] += made
        stamps["capture"] += captured
        variants.append(VariantProgress(variant, len(made), len(captured), len(samples)))
    rates = {kind: _rate(times, now) for kind, times in stamps.items()}
    total = len(samples) * len(config.variants)
    left = {"generate": total - len(stamps["generate"])}
    left["capture"] = total - len(stamps["capture"]) if config.capture.enabled else 0
    everything = stamps["generate"] + stamps["capture"]
    return Progress(
        variants=variants,
        trajectory_rate=rates["generate"],
        capture_rate=rates["capture"],
        eta=_eta(left, rates),
        last_file=max(everything) if everything else None,
        failures=_failures(layout),
        pool=pool,
    )


def _times(folder: Path, name: str, samples: list[str]) -> list[float]:
    found = []
    for sample in samples:
        try:
            found.append((folder / sample / name).stat().st_mtime)
        except OSError:
            continue
    return found


def _rate(times: list[float], now: float) -> float:
    recent = [stamp for stamp in times if now - stamp <= WINDOW]
    if len(recent) < 2:
        return 0.0
    return len(recent) / max(1.0, now - min(recent))


def _eta(left: dict[str, int], rates: dict[str, float]) -> float | None:
    seconds = 0.0
    for kind, count in left.items():
        if count:
            # Nothing has been captured yet while trajectories are made: take it to go as fast.
            rate = rates[kind] or (rates["generate"] if kind == "capture" else 0.0)
            if not rate:
                return None
            seconds += count / rate
    return seconds


def _failures(layout: Layout) -> list[tuple[str, str]]:
    """The pairs whose last job failed, latest first, with the first line of the reason."""
    found = []
    for kind, made in (("generate", MESSAGES), ("capture", METADATA)):
        for path in (layout.root / "logs" / kind).glob("*/*.log"):
            variant, sample = path.parent.name, path.stem
            base = layout.pair(variant, sample) if kind == "generate" else layout.activations(variant, sample)
            status = path.stat()
            if status.st_size and not (base / made).exists():
                reason = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[0]
                found.append((status.st_mtime, f"{kind} {variant}/{sample}", reason))
    return [(name, reason) for _, name, reason in sorted(found, reverse=True)]


def token_rates(layout: Layout, config: Config, now: float) -> dict[str, float]:
    """Generated tokens per second of each worker, from the trajectories of the last minutes."""
    tokens: dict[str, int] = {}
    first: dict[str, float] = {}
    for variant in config.variants:
        for path in (layout.root / variant).glob(f"*/{STATE}"):
            try:
                if now - path.stat().st_mtime > WINDOW:
                    continue
                state, made = AgentState.read_file(path), path.stat().st_mtime
            except (OSError, DamagedError):
                continue
            worker, seconds = state.worker_id, state.timing.seconds
            if worker is not None and seconds is not None:
                tokens[worker] = tokens.get(worker, 0) + (state.usage.completion_tokens or 0)
                first[worker] = min(first.get(worker, now), made - seconds)
    return {worker: count / max(1.0, now - first[worker]) for worker, count in tokens.items()}
