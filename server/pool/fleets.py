"""Every fleet of the pool, by what its servers are, and the turns in which those of this machine stand."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from emoprobe.config.execution.slurm import SlurmShape
from emoprobe.config.execution.workers import Workers
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.models.hardware import described, models_without_batch_invariance, why_without_gpu
from server.pool.api_endpoint import ApiConnections, ApiEndpoint
from server.pool.connections import Connections
from server.pool.fleet import Fleet
from server.pool.launch import (
    BATCH_INVARIANT,
    Kind,
    Share,
    command,
    environment,
    environment_elsewhere,
    free_port,
    shares,
    tensor_parallel,
    visible_gpus,
)
from server.pool.launcher import Endpoint, Launcher, LaunchError
from server.pool.local_process import Command, LocalProcess
from server.pool.served import ServedModel
from server.pool.slurm.cluster import SlurmCluster
from server.pool.slurm.folder import JobCommand
from server.pool.slurm.job import SlurmJob
from server.pool.turns import Turns
from server.pool.worker import Worker, WorkerLimits

log = logging.getLogger(__name__)

NOT_DEPLOYED = (
    "deploy.backend is set, but nothing that serves this experiment is deployed: run `make deploy` with the same "
    "CONFIG; or, to start servers here, set deploy: {backend: null}"
)
PER_BATCH = (
    "%s has no batch invariance in vLLM, which needs compute capability 8.0: an answer can depend on what else was in "
    "its batch, so answers are reproducible per batch and not alone"
)
# A server on another machine is lost in more ways, so it is looked at more often.
SLURM_HEALTH_SECONDS = 2.0
# What servers compile, below the results: the file system that all nodes share.
COMPILED = ".compiled"


@dataclass(frozen=True)
class ServerSlot:
    """A server's place on this machine: its number among those of its kind, what it may use, its key and its log.

    `push` is where an NNsight server pushes activations.
    """

    kind: Kind
    number: int
    share: Share
    api_key: str
    log_path: Path
    push: str | None = None

    @property
    def name(self) -> str:
        """Name of the worker in results."""
        return f"{self.kind}-{self.number}"


def local_process(experiment: ServedModel, place: ServerSlot) -> Launcher:
    """A server that is a process of the pool. It takes the first free port from its number on, see `workers.port`."""
    config, share = experiment.started, place.share
    first = config.workers.port + place.number if config.workers.port else 0

    def make() -> Command:
        port = free_port(first)
        model, name = experiment.card.path, experiment.model_name
        line = command(place.kind, config, model, name, share, port, experiment.results, push=place.push)
        env = environment(config, share, place.api_key)
        wrong = why_without_gpu(line[0], env["PYTHONPATH"]) if share.gpus else ""
        if wrong:
            raise LaunchError(wrong)
        return Command(line, env, share.cores, port)

    return LocalProcess(place.name, make, place.log_path)


def slurm_command(experiment: ServedModel, kind: Kind, shape: SlurmShape) -> JobCommand:
    """Return the command of a SLURM job of an experiment."""
    share = Share([], [str(number) for number in range(shape.gpus)])
    model, name = experiment.card.path, experiment.model_name
    line = command(kind, experiment.started, model, name, share, "{port}", experiment.results, "{host}")
    env = environment_elsewhere(experiment.started, gpu=bool(shape.gpus))
    wanted = experiment.started.generation.engine.batch_invariant
    if wanted is True and shape.gpus:
        env |= BATCH_INVARIANT  # on whatever GPUs the job gets: where they lack it, vLLM refuses to start
    where_able = BATCH_INVARIANT if wanted is not False and shape.gpus else {}
    return JobCommand(line, env, experiment.results / COMPILED, where_able)


class Fleets:
    """Makes fleets on first use. Experiments that need the same servers share them, with the settings of the first.

    Args:
        launcher: how a server of this machine is started.
        turns: makes what decides which fleet of a kind stands.
    """

    def __init__(
        self,
        launcher: Callable[[ServedModel, ServerSlot], Launcher] = local_process,
        turns: Callable[[], Turns] = Turns,
    ) -> None:
        self._launcher = launcher
        self._fleets: dict[Hashable, Fleet] = {}
        self._forgotten: list[Fleet] = []
        self._turns: dict[Kind | Literal["gpu"], Turns] = defaultdict(turns)
        self._gates: dict[tuple[str, ...], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._told: set[str] = set()
        self._clusters: dict[Path, SlurmCluster] = {}
        self._generating = 0
        self._no_generation = asyncio.Event()
        self._no_generation.set()

    def __iter__(self) -> Iterator[Fleet]:
        return iter(self._fleets.values())

    def of(self, kind: Kind, experiment: ServedModel, logs: Path) -> Fleet:
        """The fleet that serves the model of an experiment, or of a judge.

        Args:
            kind: what is asked for.
            experiment: who asks.
            logs: the folder for the servers' logs, should they be started for it.

        Raises:
            LaunchError: the machine cannot hold them, or their key cannot be read.
        """
        key = _identity(kind, experiment)
        if key not in self._fleets:
            self._fleets[key] = self._new(kind, experiment, logs)
        fleet = self._fleets[key]
        fleet.experiments.add(experiment.config.experiment.name)
        return fleet

    def of_judge(self, experiment: ServedModel, settings: JudgeGrader) -> Fleet:
        """Return the endpoints of a judge; judges with one model at one API share them."""
        key = ("judge", tuple(settings.endpoints), settings.api_key_env, settings.model)
        if key not in self._fleets:
            workers = experiment.config.workers
            limits = WorkerLimits(workers.requests, workers.restarts, workers.start_timeout, workers.hang_timeout)
            api_key = os.environ.get(settings.api_key_env) if settings.api_key_env else None
            fleet = Fleet("api", settings.model, workers.attempts, None)
            fleet.workers += [
                Worker(
                    f"judge-{number}", fleet.model, api_key, limits, ApiEndpoint(url), fleet.changed, None, None,
                    ApiConnections,
                )
                for number, url in enumerate(settings.endpoints)
            ]  # fmt: skip
            self._fleets[key] = fleet
        self._fleets[key].experiments.add(experiment.config.experiment.name)
        return self._fleets[key]

    def forget_failed(self) -> None:
        """Let the next workflow try again what could not be started."""
        self._forgotten += [fleet for fleet in self._fleets.values() if fleet.is_down]
        self._fleets = {key: fleet for key, fleet in self._fleets.items() if not fleet.is_down}

    @contextmanager
    def generating(self, fleet: Fleet) -> Iterator[None]:
        """Captures of this machine wait while the block generates here."""
        if not fleet.is_local:
            yield
            return
        self._generating += 1
        self._no_generation.clear()
        try:
            yield
        finally:
            self._generating -= 1
            if not self._generating:
                self._no_generation.set()

    def start_capture_early(self, experiment: ServedModel, logs: Path) -> None:
        """Start what will capture an experiment's activations while vLLM starts, which leaves a core idle.

        Not beside a GPU: vLLM measures how much of its memory is free.

        Raises:
            LaunchError: the machine cannot hold it.
        """
        if experiment.config.capture.enabled and not visible_gpus():
            fleet = self.of("nnsight", experiment, logs)
            if fleet.is_local:
                fleet.start_early()

    async def before_capture(self, fleet: Fleet) -> None:
        """Wait for the end of generation, where both kinds of server share the cores: two at once take longer."""
        if fleet.is_local and not visible_gpus():
            await self._no_generation.wait()

    def end_unused(self, kind: Kind) -> None:
        """End the servers of a kind for which no more requests will come."""
        for turns in self._turns.values():
            turns.end_unused(kind)

    async def stop(self) -> None:
        """End every server that was started."""
        await asyncio.gather(*(turns.close() for turns in self._turns.values()))
        await asyncio.gather(*(fleet.stop() for fleet in [*self._fleets.values(), *self._forgotten]))
        await asyncio.gather(*(cluster.close() for cluster in self._clusters.values()))

    def _line(self, kind: Kind, experiment: ServedModel) -> Kind | Literal["gpu"]:
        """The line in which a fleet waits for its turn: its kind's, or that of all servers of the GPUs."""
        sharing = experiment.started.workers.gpu_sharing
        return "gpu" if sharing == "turns" and visible_gpus() and not experiment.config.workers.slurm else kind

    def _tell_of_batches(self, hardware: str) -> None:
        """Say once which GPUs make answers depend on the batch that they were computed in."""
        for gpu in set(models_without_batch_invariance(hardware)) - self._told:
            self._told.add(gpu)
            log.warning(PER_BATCH, gpu)

    def _new(self, kind: Kind, experiment: ServedModel, logs: Path) -> Fleet:
        workers, urls = experiment.config.workers, _endpoints(kind, experiment)
        limits = WorkerLimits(workers.requests, workers.restarts, workers.start_timeout, workers.hang_timeout)
        turns = None if urls else self._turns[self._line(kind, experiment)]
        fleet = Fleet(kind, experiment.model_name, workers.attempts, turns, elsewhere=bool(workers.slurm) and not urls)
        api_key: str | None = secrets.token_urlsafe(24)
        gates: dict[str, asyncio.Lock] = {}
        connect = ApiConnections if kind == "api" else Connections
        if urls:
            api_key = _endpoint_key(workers)
            endpoint = ApiEndpoint if kind == "api" else Endpoint
            launchers: dict[str, Launcher] = {f"endpoint-{number}": endpoint(url) for number, url in enumerate(urls)}
            hardware = [workers.hardware.get(url) for url in urls]
        elif experiment.config.deploy.backend is not None:
            raise LaunchError(NOT_DEPLOYED)
        elif workers.slurm:
            limits = replace(limits, health_interval=SLURM_HEALTH_SECONDS)
            launchers = self._slurm_jobs(kind, experiment, logs, api_key or "")
            hardware = [None] * len(launchers)  # known on the node alone
        else:
            launchers, hardware = {}, []
            for number, share in enumerate(shares(workers.count, tensor_parallel(experiment.started))):
                place = ServerSlot(kind, number, share, api_key or "", logs / "servers" / f"{kind}-{number}.log")
                launchers[place.name] = self._launcher(experiment, place)
                if share.gpus:
                    gates[place.name] = self._gates[tuple(share.gpus)]
                hardware.append(described(share.gpus))
                self._tell_of_batches(described(share.gpus))
        fleet.workers += [
            Worker(name, fleet.model, api_key, limits, launcher, fleet.changed, runs_on, gates.get(name), connect)
            for (name, launcher), runs_on in zip(launchers.items(), hardware, strict=True)
        ]
        return fleet

    def _slurm_jobs(self, kind: Kind, experiment: ServedModel, logs: Path, api_key: str) -> dict[str, Launcher]:
        """A launcher for each job of an experiment's shapes, by the worker's name."""
        workers = experiment.config.workers
        cluster = self._clusters.setdefault(experiment.results, SlurmCluster(experiment.results))
        shapes = [shape for shape in workers.slurm for _ in range(shape.count)]
        return {
            f"{kind}-{number}": SlurmJob(
                f"{kind}-{number}",
                shape,
                partial(slurm_command, experiment, kind, shape),
                api_key,
                cluster,
                logs / "servers" / f"{kind}-{number}.log",
                workers.queue_timeout,
                placed=self._tell_of_batches,
            )
            for number, shape in enumerate(shapes)
        }


def _endpoint_key(workers: Workers) -> str | None:
    """The key of the servers that somebody else runs.

    Raises:
        LaunchError: its file cannot be read.
    """
    if workers.api_key_file is not None:
        try:
            return Path(workers.api_key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise LaunchError(f"workers.api_key_file = {workers.api_key_file}: {error.strerror or error}") from None
    return os.environ.get(workers.api_key_env) if workers.api_key_env else None


def _endpoints(kind: Kind, experiment: ServedModel) -> list[str]:
    """The servers that somebody else runs for an experiment."""
    return experiment.config.workers.endpoints_of(kind)


def _identity(kind: Kind, experiment: ServedModel) -> Hashable:
    """Return the identity of an experiment's servers, without settings that only say how they are run.

    Raises:
        LaunchError: the key of the endpoints cannot be read.
    """
    urls = _endpoints(kind, experiment)
    config = experiment.pinned if urls else experiment.started
    if urls:
        # Servers that are deployed again have another key in the same file.
        return kind, tuple(urls), _endpoint_key(config.workers), experiment.model_name
    card = experiment.card
    model = (card.path, card.sha256, config.model.dtype, experiment.model_name)
    # An NNsight server writes files, under one root only.
    if kind == "nnsight":
        return kind, *model, str(experiment.results)
    return kind, *model, config.generation.engine.model_dump_json(), config.conversation.tool_parser
