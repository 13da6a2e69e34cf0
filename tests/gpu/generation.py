"""Generation, turns and the end of servers: steps with a model server, vLLM unless another is chosen."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from emoprobe.config.files import parse_config
from emoprobe.models.hardware import without_batch_invariance
from emoprobe.models.resolved import with_placement, with_values
from emoprobe.models.settings import read_settings
from emoprobe.models.source import prepare
from server.pool.launch import BATCH_INVARIANT, Share, command, environment, visible_gpus
from tests.gpu.steps import Figures, Setting, nvidia_smi
from tests.ports import free_port
from tests.workspace import Workspace, wait_for

KEY = "sk-check"
START_SECONDS = 300.0
PROMPTS, TOKENS = 32, 64
IN_FLIGHT = (64, 256)
# Of a GPU's memory, MiB, which other programs may take or free meanwhile.
MEMORY_NOISE = 512


class Server:
    """A model server, started as the pool starts it.

    Args:
        setting: of the check.
        model: directory of its model.
        invariant: whether its answers are to be independent of their batch, where the GPU has kernels for that.
    """

    def __init__(self, setting: Setting, model: Path, *, invariant: bool) -> None:
        cores = sorted(os.sched_getaffinity(0))
        share = Share(cores, visible_gpus()[:1] if setting.device == "cuda" else [])
        backend: Any = setting.backend
        on_gpu = bool(share.gpus)
        config = parse_config(
            {"model": {"source": str(model)}, "workers": {"requests": max(IN_FLIGHT), "gpu_memory": 0.9}}
        )
        values = {
            "model.dtype": "bfloat16" if on_gpu else "float32",
            "engine.tensor_parallel": 1,
            "engine.max_model_len": 2048,
        }
        config = with_placement(with_values(config, values), model)
        self.port = free_port()
        self.log = setting.folder / f"{backend}-{self.port}.log"
        line = command(backend, config, str(model), "checked", share, self.port, setting.folder / "activations")
        env = environment(config, share, KEY)
        self.invariant = on_gpu and invariant and not without_batch_invariance(share.gpus)
        if not self.invariant:
            env = {name: value for name, value in env.items() if name not in BATCH_INVARIANT}
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(line, env=env, stdout=output, stderr=output, start_new_session=True)
        started = time.monotonic()
        try:
            wait_for(self._is_up, START_SECONDS, "the server")
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - started

    def _is_up(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.log.read_text(errors='replace')[-1500:]}"
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    async def complete(self, client: httpx.AsyncClient, prompt: list[int], tokens: int = TOKENS) -> tuple[str, int]:
        """Ask for a completion at temperature 0 with a fixed number of tokens; return its text and their number."""
        body = {
            "model": "checked", "prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "seed": 1,
            "ignore_eos": True,
        }  # fmt: skip
        answer = await client.post(f"http://127.0.0.1:{self.port}/v1/completions", json=body)
        assert answer.status_code == 200, answer.text[:500]
        found = answer.json()
        return found["choices"][0]["text"], found["usage"]["completion_tokens"]

    def completions(self, prompts: list[list[int]], in_flight: int, tokens: int = TOKENS) -> list[tuple[str, int]]:
        """Complete prompts, so many at a time."""

        async def ask() -> list[tuple[str, int]]:
            places = asyncio.Semaphore(in_flight)
            headers = {"Authorization": f"Bearer {KEY}"}
            limits = httpx.Limits(max_connections=in_flight)
            async with httpx.AsyncClient(headers=headers, timeout=600, limits=limits) as client:

                async def one(prompt: list[int]) -> tuple[str, int]:
                    async with places:
                        return await self.complete(client, prompt, tokens)

                return await asyncio.gather(*map(one, prompts))

        return asyncio.run(ask())

    def processes(self) -> set[int]:
        """The server and everything that it has started."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
        found, waiting = set[int](), [self.process.pid]
        while waiting:
            found.add(waiting[-1])
            waiting += children.get(waiting.pop(), [])
        return found

    def stop(self) -> None:
        """End the server and what it has started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class GenerationCheck:
    """The steps, and the servers that they share: one at a time."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.server: Server | None = None
        self._memory = nvidia_smi("memory.used")
        self._alone: list[str] = []

    @property
    def steps(self) -> list[tuple[str, Callable[[], Figures]]]:
        """Name and function of each step, in order."""
        return [
            ("start", self.start),
            ("throughput", self.throughput),
            ("alone and shuffled", self.shuffled),
            ("SIGKILL", self.killed),
            ("after a restart", self.restarted),
            ("throughput without batch invariance", self.variant_throughput),
            ("turns, and one trajectory again", self.turns),
        ]

    def close(self) -> None:
        """End the server that stands."""
        if self.server is not None:
            self.server.stop()
            self.server = None

    @cached_property
    def model(self) -> Path:
        """The directory of the model."""
        if self.setting.model is not None:
            return self.setting.model.absolute()
        config = parse_config({})
        return Path(prepare(config.model, self.setting.folder / "models").path)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Random prompts of 8 to 63 tokens."""
        generator = random.Random(0)
        vocabulary = min(3000, read_settings(self.model)["vocab_size"])
        lengths = [generator.randrange(8, 64) for _ in range(8 if self.setting.tiny else PROMPTS)]
        return [[generator.randrange(vocabulary // 10, vocabulary) for _ in range(length)] for length in lengths]

    @contextmanager
    def standing(self) -> Iterator[Server]:
        """The server that an earlier step has started."""
        assert self.server is not None, "the server was not started; see the steps before"
        yield self.server

    def start(self, *, invariant: bool = True) -> Figures:
        """Start the server."""
        self.close()
        self.server = Server(self.setting, self.model, invariant=invariant)
        return {
            "backend": self.setting.backend,
            "start_seconds": round(self.server.start_seconds, 1),
            "batch_invariant": self.server.invariant,
            "gpu_memory_mib": nvidia_smi("memory.used"),
        }

    def throughput(self) -> Figures:
        """Measure generated tokens a second with 64 and 256 requests in flight."""
        figures: Figures = {}
        with self.standing() as server:
            server.completions(self.prompts[:4], 4, 8)
            for in_flight in (4, 8) if self.setting.tiny else IN_FLIGHT:
                prompts = [self.prompts[number % len(self.prompts)] for number in range(2 * in_flight)]
                started = time.perf_counter()
                answers = server.completions(prompts, in_flight, 16 if self.setting.tiny else 128)
                tokens = sum(count for _, count in answers)
                figures[f"in_flight_{in_flight}"] = round(tokens / (time.perf_counter() - started))
            figures["batch_invariant"] = server.invariant
        return figures

    def shuffled(self) -> Figures:
        """Complete 32 prompts alone, then all at once in another order: with batch invariance every answer is the same."""
        with self.standing() as server:
            self._alone = [text for text, _ in server.completions(self.prompts, 1)]
            order = random.Random(1).sample(range(len(self.prompts)), len(self.prompts))
            together = server.completions([self.prompts[number] for number in order], len(order))
            same = sum(self._alone[number] == text for number, (text, _) in zip(order, together, strict=True))
            assert same == len(order) or not server.invariant, f"{len(order) - same} answers depend on their batch"
            return {"prompts": len(order), "same": same, "batch_invariant": server.invariant}

    def killed(self) -> Figures:
        """Kill the server: within half a minute none of its processes is left, nor memory of the GPU in use."""
        with self.standing() as server:
            started = server.processes()
            assert server.process.pid in started
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            self.server = None
            begun = time.monotonic()
            try:
                wait_for(lambda: not any(map(_lives, started)), 30, "the end of the processes of a killed server")
                wait_for(self._memory_is_free, 30, "the GPU's memory, which a killed server had")
            finally:
                server.stop()
            return {"processes": len(started), "gone_after_seconds": round(time.monotonic() - begun, 2)}

    def _memory_is_free(self) -> bool:
        used = nvidia_smi("memory.used")
        return all(float(now) <= float(before) + MEMORY_NOISE for now, before in zip(used, self._memory, strict=True))

    def restarted(self) -> Figures:
        """Complete the prompts alone by another server: with batch invariance, and on a CPU, every answer is the same."""
        figures = self.start()
        with self.standing() as server:
            again = [text for text, _ in server.completions(self.prompts, 1)]
        same = sum(one == two for one, two in zip(self._alone, again, strict=True))
        certain = self.setting.device == "cpu" or bool(figures["batch_invariant"])
        assert same == len(again) or not certain, f"{len(again) - same} answers changed with a restart of the server"
        return {**figures, "same": same}

    def variant_throughput(self) -> Figures:
        """Start a server without batch invariance and measure the same throughput."""
        figures = self.start(invariant=False)
        try:
            return {**figures, **self.throughput()}
        finally:
            self.close()

    def turns(self) -> Figures:
        """Run an experiment whose vLLM fills the GPU, so that captures wait for its end; make one trajectory again."""
        self.close()
        gpus = self.setting.device == "cuda"
        config = {
            "experiment": {"name": "check"},
            "model": {"source": str(self.model)},
            "dataset": {"samples": 2 if self.setting.tiny else 8},
            "variants": {"control": {}, "calm": {"text": "It is a quiet day."}},
            "generation": {
                "backend": self.setting.backend, "max_tokens": 16 if self.setting.tiny else 64,
                "engine": {"compile": False},
            },
            "workers": {"gpu_sharing": "turns", "gpu_memory": 0.9} if gpus else {},
        }  # fmt: skip
        folder = self.setting.folder / "experiment"
        folder.mkdir()
        workspace = Workspace(folder, config, copied=False)
        workspace.run("trajectories", "activations")
        made = workspace.trajectories()
        samples = 2 if self.setting.tiny else 8
        assert len(made) == 2 * samples, f"{len(made)} trajectories in place of {2 * samples}: {', '.join(made)}"
        log = (workspace.layout.root / "logs/pool.log").read_text()
        if gpus and self.setting.backend == "vllm":
            generated, captured = (
                re.search(rf"^(.{{23}}).* {name}-0: process", log, re.M) for name in ("vllm", "nnsight")
            )
            assert generated is not None
            assert captured is not None
            assert generated[1] < captured[1], "the capture server started first"
        path = workspace.layout.root / next(iter(made))
        path.unlink()
        workspace.run("trajectories", "activations")
        assert workspace.trajectories() == made, "a trajectory that was made again differs"
        return {"trajectories": len(made), "same_after_deletion": True}


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
