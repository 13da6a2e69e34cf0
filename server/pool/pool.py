"""The pool's process: clients at a port, owners that it must not outlive, one fleet a kind of server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
from collections import Counter
from pathlib import Path

from emoprobe.results.record import DamagedError
from emoprobe.tasks.samples import DataError
from emoprobe.tasks.variants import VariantError
from server.pool import jobs
from server.pool.address import Address
from server.pool.fleet import Fleet, FleetDownError, GaveUpError, RefusedError
from server.pool.launch import Kind, LaunchError, command, environment, free_port, shares, visible_gpus
from server.pool.run import Run
from server.pool.worker import Launch, Limits, Worker

log = logging.getLogger(__name__)


class Pool:
    """Answers clients until its last owner has died."""

    def __init__(self, address_path: Path) -> None:
        self._address_path = address_path
        self._token = ""
        self._fleets: dict[tuple[Kind, Path | None], Fleet] = {}
        self._runs: dict[tuple[str, str, str], Run] = {}
        self._owners: dict[int, int] = {}
        self._stopped: set[int] = set()
        self._running: Counter[str] = Counter()
        self._generation_idle = asyncio.Event()
        self._generation_idle.set()
        self._closing = asyncio.Event()
        self._keep_alive = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, run: Run, owner: int) -> None:
        """Listen until there is no owner left, then end every server that was started."""
        self._adopt(owner)
        self._keep_alive = run.config.workers.keep_alive
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._closing.set)
        # Every job in flight is a connection, and with many they come at once.
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096)
        address = Address.new(server.sockets[0].getsockname()[1])
        self._token = address.token
        address.write(self._address_path)
        log.info("pool %d listens at port %d", os.getpid(), address.port)
        await self._closing.wait()
        log.info("pool %d ends", os.getpid())
        # The next run starts a pool of its own rather than talk to one that is ending.
        if Address.read(self._address_path) == address:
            self._address_path.unlink(missing_ok=True)
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(fleet.stop() for fleet in self._fleets.values()))

    def _run(self, config_file: str, directory: str, owner: str) -> Run:
        """What the jobs of one workflow share; the next workflow finds data, model and mistakes as they are by then."""
        key = (config_file, directory, owner)
        if key not in self._runs:
            self._runs[key] = Run.read(config_file, directory)
        return self._runs[key]

    def _adopt(self, owner: int) -> None:
        """Live at least as long as a process; a process is watched by handle, as its number may be used again."""
        if owner in self._owners:
            return
        try:
            handle = os.pidfd_open(owner)
        except ProcessLookupError:
            log.warning("owner %d is gone", owner)
            self._closing.set()
            return
        self._owners[owner] = handle
        asyncio.get_running_loop().add_reader(handle, self._owner_died, owner)

    def _owner_died(self, owner: int) -> None:
        handle = self._owners.pop(owner)
        loop = asyncio.get_running_loop()
        loop.remove_reader(handle)
        os.close(handle)
        self._runs = {key: run for key, run in self._runs.items() if key[2] != str(owner)}
        log.info("owner %d ended; %d left", owner, len(self._owners))
        if not self._owners:
            loop.call_later(self._keep_alive, self._close_if_unowned)

    def _close_if_unowned(self) -> None:
        if not self._owners:
            self._closing.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            token, _, line = (await reader.readline()).decode().rstrip("\n").partition("\t")
            if not secrets.compare_digest(token, self._token):
                return
            if line == "status":
                answer = json.dumps(self.status())
            else:
                work = asyncio.create_task(self._answer(*line.split("\t")))
                gone = asyncio.create_task(reader.read())
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                if not work.done():  # the client went away: its request makes room for others
                    work.cancel()
                    await asyncio.wait({work})
                    return
                answer = work.result()
            writer.write(answer.encode())
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, config_file: str, directory: str, owner: str, kind: str, variant: str, sample: str) -> str:
        """Do one job; the answer is `ok`, or the reason why not."""
        self._adopt(int(owner))
        run = self._run(config_file, directory, owner)
        key = (kind, variant, sample)
        if key in run.failed:  # the workflow asks again for what cannot succeed
            return run.failed[key]
        try:
            await self._do(kind, run, variant, sample)
        except FleetDownError as error:
            self._stop_owners()
            return f"{error}\n"
        except (GaveUpError, RefusedError, VariantError, DataError, DamagedError) as error:
            message = f"{variant}/{sample}: {error}\n"
            if isinstance(error, RefusedError | VariantError):
                run.failed[key] = message
            log.error("%s", message.rstrip())
            return message
        except LaunchError as error:
            return f"{error}\n"
        except OSError as error:
            log.error("%s/%s: %s", variant, sample, error)
            # The same words for every pair, so that the list of failures has them once.
            reason = f"a file of {run.layout.root} cannot be read or written: {error.strerror or error}"
            return f"{variant}/{sample}: {reason}\nWhat to do: make the folder writable, with room, then run again.\n"
        except Exception as error:
            log.exception("%s %s/%s", kind, variant, sample)
            return f"{variant}/{sample}: {type(error).__name__}: {error} (a defect; see the pool's log)\n"
        return "ok\n"

    def _stop_owners(self) -> None:
        """Ask the workflows to start no more jobs: without a server each would fail for the same reason."""
        for owner in self._owners:
            if owner not in self._stopped:
                self._stopped.add(owner)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner, signal.SIGTERM)

    async def _do(self, kind: str, run: Run, variant: str, sample: str) -> None:
        self._running[kind] += 1
        try:
            if kind == "sample":
                await jobs.draw(run, sample)
            elif kind == "generate":
                self._generation_idle.clear()
                await jobs.generate(run, self._fleet(run.config.generation.backend, run), variant, sample)
            else:
                if not visible_gpus() and not run.config.workers.endpoints:
                    # On a CPU both kinds of server share the cores, and two at once take longer than one by one.
                    await self._generation_idle.wait()
                await jobs.capture(run, self._fleet("nnsight", run), variant, sample)
        finally:
            self._running[kind] -= 1
            if not self._running["generate"]:
                self._generation_idle.set()

    def _fleet(self, kind: Kind, run: Run) -> Fleet:
        """The fleet of a kind of server, made on first use.

        An NNsight server writes files, under one root only, so each results folder has servers of its own.
        """
        key = (kind, run.layout.root.parent if kind == "nnsight" else None)
        if key not in self._fleets:
            fleet = Fleet([], run.config.workers.attempts)
            fleet.workers.extend(self._workers(kind, run, fleet))
            self._fleets[key] = fleet
            fleet.start()
        return self._fleets[key]

    def _workers(self, kind: Kind, run: Run, fleet: Fleet) -> list[Worker]:
        settings = run.config.workers
        limits = Limits(settings.requests, settings.restarts, settings.start_timeout, settings.hang_timeout)
        endpoints = settings.endpoints if kind == "vllm" else settings.capture_endpoints
        if endpoints:
            key = os.environ.get(settings.api_key_env) if settings.api_key_env else None
            return [
                Worker(
                    f"endpoint-{number}",
                    url.removesuffix("/v1"),
                    run.model_name,
                    key,
                    limits,
                    None,
                    None,
                    fleet.changed,
                )
                for number, url in enumerate(endpoints)
            ]
        api_key = secrets.token_urlsafe(24)
        workers = []
        for number, share in enumerate(shares(settings.count, run.config.generation.engine.tensor_parallel)):
            name = f"{kind}-{number}"

            def launch(share=share, number=number) -> Launch:  # type: ignore[no-untyped-def]
                port = free_port(settings.port + number if settings.port else 0)
                root = run.layout.root.parent
                line = command(kind, run.config, run.card.path, run.model_name, share, port, root)
                return Launch(line, environment(run.config, share, api_key), share.cores, port)

            log_path = run.layout.log("servers", name)
            workers.append(Worker(name, "", run.model_name, api_key, limits, log_path, launch, fleet.changed))
        return workers

    def status(self) -> dict[str, object]:
        """What a watcher wants to know: each worker's state, load and record."""
        return {
            "pid": os.getpid(),
            "owners": list(self._owners),
            "running": dict(self._running),
            "workers": [
                {
                    "name": worker.name,
                    "url": worker.url,
                    "state": worker.state,
                    "in_flight": worker.in_flight,
                    "served": worker.served,
                    "failures": worker.failures,
                    "restarts": worker.restarts,
                    "error": worker.error,
                }
                for fleet in self._fleets.values()
                for worker in fleet.workers
            ],
        }
