"""Hold model servers on this machine until they are ended or idle: python -m server.deploy.keeper FOLDER.

It is to a deployment what the pool is to a run: it starts the servers, watches them, starts a dead one again, and ends
them all when it ends, in whatever way that is. Each listens on the loopback interface and demands the deployment's key;
a socket in a folder that only this user may enter leads to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.models import source as models
from emoprobe.models.hardware import described, without_batch_invariance
from emoprobe.models.placement import PlacementError
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from server.deploy import processes
from server.deploy.deployment import ENVIRONMENT, KEY, ORDER, PROCESS, Order, ServerStatus, Status
from server.deploy.tunnel import GoneError, Relay, Streams
from server.pool.connections import allow_open_files
from server.pool.fleets import PER_BATCH, ServerSlot, local_process
from server.pool.launch import Kind, shares, tensor_parallel, visible_gpus
from server.pool.run import ExperimentJobs
from server.pool.worker import Worker, WorkerLimits

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
# What is downloaded and compiled goes below the folder, so that it goes when the folder does.
CACHES = ("HF_HOME", "XDG_CACHE_HOME", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
TURNS = (
    "the GPUs cannot hold vLLM and the NNsight server at once, and servers that are deployed stand together; take "
    "larger or more GPUs (deploy.min_vram), or run the workflow on that machine, where they take turns"
)
# A socket's path must fit into the kernel's field of 108 bytes.
MAX_SOCKET = 107


class Keeper:
    """The servers of one order.

    Args:
        folder: the deployment's folder on this machine; `run/` in it holds the order, the key and the sockets.
        order: what shall stand.
        key: what the servers demand.
    """

    def __init__(self, folder: Path, order: Order, key: str) -> None:
        self._folder, self._order, self._key = folder, order, key
        self._run = folder / "run"
        self._config = parse_config(order.config, ORDER)
        self._workers: list[Worker] = []
        self._relays: list[Relay] = []
        self._hardware: list[str] = []
        self._model_sha256: str | None = None
        self._stop = asyncio.Event()
        self._ended: str | None = None
        self._written: Status | None = None

    async def keep(self) -> None:
        """Bring the servers up and hold them until they end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, "ended as it was told to")
        supervisors: list[asyncio.Task[None]] = []
        fronts: list[asyncio.AbstractServer] = []
        try:
            self._tell("prepares the model")
            experiment = await asyncio.to_thread(prepared, self._config, self._folder)
            self._model_sha256 = experiment.card.sha256
            await experiment.decide()
            self._make_workers(experiment)
            supervisors = [asyncio.create_task(worker.supervise()) for worker in self._workers]
            for worker, relay in zip(self._workers, self._relays, strict=True):
                fronts.append(await asyncio.start_unix_server(relay.serve, self._socket(worker.name)))
            await self._watch()
        except Exception as error:
            log.exception("the keeper failed")
            self._end(f"{type(error).__name__}: {error}")
        finally:
            for front in fronts:
                front.close()
            for task in supervisors:
                task.cancel()
            await asyncio.gather(*supervisors, return_exceptions=True)
            self._tell("ended")

    def _make_workers(self, experiment: ExperimentJobs) -> None:
        settings = self._config.workers
        limits = WorkerLimits(settings.requests, settings.restarts, settings.start_timeout, settings.hang_timeout)
        kinds: list[Kind] = [kind for kind in ("vllm", "nnsight") if kind in self._order.kinds]
        started = experiment.started
        if started.workers.gpu_sharing == "turns" and len(kinds) > 1 and visible_gpus():
            raise PlacementError(TURNS)
        divided = shares(settings.count, tensor_parallel(started))
        gates: dict[tuple[str, ...], asyncio.Lock] = defaultdict(asyncio.Lock)
        for gpu in dict.fromkeys(name for share in divided for name in without_batch_invariance(share.gpus)):
            log.warning(PER_BATCH, gpu)
        for kind in kinds:
            for number, share in enumerate(divided):
                log_path = self._folder / "logs" / f"{kind}-{number}.log"
                place = ServerSlot(kind, number, share, self._key, log_path, self._order.push)
                launcher = local_process(experiment, place)
                gate = gates[tuple(share.gpus)] if share.gpus else None
                runs_on = described(share.gpus)
                worker = Worker(
                    place.name, experiment.model_name, self._key, limits, launcher, lambda: None, runs_on, gate
                )
                self._workers.append(worker)
                self._relays.append(Relay(_connect_to(worker)))

    async def _watch(self) -> None:
        """Write down how it goes, until the servers are to end."""
        minutes = self._order.idle_minutes
        while not self._stop.is_set():
            self._tell("holds its servers")
            if all(worker.state == "failed" for worker in self._workers):
                self._end("no server is left")
            # Nobody can ask before a server stands, so starting counts as use.
            idle = min(relay.idle_seconds() for relay in self._relays)
            if any(worker.state == "starting" for worker in self._workers):
                for relay in self._relays:
                    relay.touch()
            elif minutes is not None and idle >= 60 * minutes:
                self._end(f"idle for {minutes:g} minutes (deploy.idle_minutes)")
            try:
                await asyncio.wait_for(self._stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            log.info("%s", reason)
        self._stop.set()

    def _socket(self, name: str) -> str:
        path = str(self._run / f"{name}.sock")
        if len(os.fsencode(path)) > MAX_SOCKET:
            raise ValueError(f"{path} is too long for a socket; choose a shorter deploy.folder")
        Path(path).unlink(missing_ok=True)
        return path

    def _tell(self, phase: str) -> None:
        """Write down how it goes, where that has changed."""
        servers = [
            ServerStatus(
                name=worker.name,
                kind=worker.name.rpartition("-")[0],
                state=worker.state,
                phase=worker.phase(),
                error=worker.error,
                restarts=worker.restarts,
                socket=str(self._run / f"{worker.name}.sock"),
                hardware=worker.hardware or "",
            )
            for worker in self._workers
        ]
        status = Status(
            digest=self._order.digest,
            phase=phase,
            model_sha256=self._model_sha256,
            servers=servers,
            ended=self._ended,
        )
        if status != self._written:
            status.write(self._run)
            self._written = status


def prepared(config: Config, folder: Path) -> ExperimentJobs:
    """The experiment on this machine, its model ready to be loaded; servers write below `activations/`.

    Raises:
        ModelError: the model cannot be had.
    """
    card = models.prepare(config.model, folder / "models")
    results = folder / "activations"
    atomic.write_json(Layout.of(config.experiment.name, results).model, card.to_json())
    return ExperimentJobs(config, results, folder)


def _connect_to(worker: Worker) -> Callable[[], Awaitable[Streams]]:
    async def connect() -> Streams:
        if worker.state == "failed":
            raise GoneError
        if worker.state != "live":
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", urlsplit(worker.url).port)

    return connect


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the deployment's folder on this machine")
    folder = parser.parse_args().folder.resolve()
    run = folder / "run"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    processes.write_own(run / PROCESS)
    os.umask(0o077)
    allow_open_files()
    for variable in CACHES:
        os.environ.setdefault(variable, str(folder / "cache" / variable.lower()))
    os.environ.update(json.loads((run / ENVIRONMENT).read_text(encoding="utf-8")))
    (run / ENVIRONMENT).unlink()  # credentials may be in it, and nobody needs it again
    order = Order.model_validate_json((run / ORDER).read_bytes())
    asyncio.run(Keeper(folder, order, (run / KEY).read_text(encoding="utf-8").strip()).keep())
    (run / PROCESS).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
