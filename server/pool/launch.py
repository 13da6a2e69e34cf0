"""How a model server is started: its command line, environment and share of the machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.science.generation import Backend
from emoprobe.models.hardware import visible, without_batch_invariance
from server.guard import KEY_VARIABLE
from server.pool.address import search_path
from server.pool.launcher import LaunchError

Kind = Backend
CODE = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
BATCH_INVARIANT = {"VLLM_BATCH_INVARIANT": "1"}
# What a server elsewhere is given of the pool's environment; the rest may be secret, or mean nothing there.
FORWARDED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_HOME", "HF_HOME",
    "HF_HUB_CACHE", "NVIDIA_DRIVER_CAPABILITIES",
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """The part of the machine that one server may use: these cores, or these GPUs."""

    cores: list[int]
    gpus: list[str]


@cache
def visible_gpus() -> list[str]:
    """The ids of the NVIDIA GPUs that this process may use; none without a driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi") is None:
        return []
    if chosen is not None:
        return visible(chosen)
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    return [str(index) for index, line in enumerate(listing.stdout.splitlines()) if line.startswith("GPU")]


def shares(count: int, gpus_each: int) -> list[Share]:
    """Divide the machine among servers: disjoint GPUs where there are any, else disjoint cores.

    With more servers than cores (or GPUs), several servers share one.

    Raises:
        LaunchError: a server wants more GPUs than there are.
    """
    cores, gpus = sorted(os.sched_getaffinity(0)), visible_gpus()
    if gpus:
        if gpus_each > len(gpus):
            raise LaunchError(f"generation.engine.tensor_parallel = {gpus_each}: only {len(gpus)} GPUs are visible")
        slots = len(gpus) // gpus_each
        return [
            Share(cores, gpus[gpus_each * (number % slots) : gpus_each * (number % slots + 1)])
            for number in range(count)
        ]
    if count > len(cores):
        return [Share([cores[number % len(cores)]], []) for number in range(count)]
    return [
        Share(cores[number * len(cores) // count : (number + 1) * len(cores) // count], []) for number in range(count)
    ]


def tensor_parallel(config: Config) -> int:
    """GPUs of one server, in a config without `auto`."""
    width = config.generation.engine.tensor_parallel
    return 1 if isinstance(width, str) else width


def free_port(first: int) -> int:
    """A port on the loopback interface that is free now: the first from `first` on, or any where it is 0."""
    for port in range(first, 65536) if first else [0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LaunchError(f"no port is free from {first} on")


def command(
    kind: Kind,
    config: Config,
    path: str,
    name: str,
    share: Share,
    port: int | str,
    root: Path,
    host: str = LOOPBACK,
    push: str | None = None,
) -> list[str]:
    """The command line of a server; it holds no secret.

    Args:
        kind: which server.
        config: the experiment, with a value in place of each `auto` (`ExperimentJobs.started`).
        path: directory of the model.
        name: what the server calls the model.
        share: its part of the machine.
        port: where it listens.
        root: the folder under which an NNsight server may write activations.
        host: the address where it listens; one that others can reach is guarded, see `server.guard`.
        push: where in object storage an NNsight server pushes activations if it is asked to.
    """
    child = [sys.executable, "-m", "server.pool.child"]
    common = ["--model", path, "--served-model-name", name, "--dtype", config.model.dtype]
    common += ["--host", host, "--port", str(port)]
    if kind == "nnsight":
        capture = ["--activation-root", str(root), "--batch-tokens", str(config.workers.batch_tokens)]
        capture += ["--memory-gib", str(config.workers.memory_gib), "--device", "cuda" if share.gpus else "cpu"]
        if push is not None:
            settings = config.storage.model_dump_json(exclude={"url", "keep_local"})
            capture += ["--push", push, "--push-settings", settings]
        return [*child, "server", *common, *capture, "--log-level", config.workers.log_level]
    workers, engine = config.workers, config.generation.engine
    # Sampling follows the request alone, which has a seed of its own, not defaults that the model's authors recommend.
    arguments = ["--max-num-seqs", str(workers.requests), "--generation-config", "vllm"]
    arguments += ["--disable-uvicorn-access-log"]
    if host != LOOPBACK:
        arguments += ["--middleware", "server.guard.Guard"]
    arguments += ["--uvicorn-log-level", workers.log_level]
    if config.conversation.tool_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", config.conversation.tool_parser]
    if engine.max_model_len is not None:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    if not (bool(share.gpus) if engine.compile is None else engine.compile):
        arguments += ["--enforce-eager"]
    if share.gpus:
        arguments += ["--gpu-memory-utilization", str(workers.gpu_memory)]
        arguments += ["--tensor-parallel-size", str(tensor_parallel(config))]
    else:
        # A seeded request whose prefill is chunked ends vLLM's engine on a CPU, so prompts are prefilled whole.
        arguments += ["--no-enable-chunked-prefill", "--gpu-memory-utilization", "0.1"]
        if isinstance(engine.max_model_len, int):
            arguments += ["--max-num-batched-tokens", str(max(engine.max_model_len, 2048))]
        # Only whole blocks of a prompt are shared with others. By default one has 128 tokens on a CPU, more than what
        # variants of a short question have in common.
        arguments += ["--block-size", "32"]
    return [*child, "vllm.entrypoints.openai.api_server", *common, *arguments, *engine.extra_args]


def environment(config: Config, share: Share, api_key: str) -> dict[str, str]:
    """The environment of a server here: its cores or GPUs, no network, reproducible arithmetic, and its API key.

    Raises:
        LaunchError: its GPUs lack the batch-invariant kernels that the configuration insists on.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "LD_PRELOAD")}
    env |= _settings(config, bool(share.gpus)) | {"PYTHONPATH": search_path(CODE)}
    env |= {"EMOPROBE_PARENT": str(os.getpid()), KEY_VARIABLE: api_key, "VLLM_API_KEY": api_key}
    if share.gpus:
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
        wanted, lacking = config.generation.engine.batch_invariant, without_batch_invariance(share.gpus)
        if wanted is True and lacking:
            raise LaunchError(
                f"generation.engine.batch_invariant = True: {' and '.join(lacking)} has no batch invariance in vLLM, "
                "which needs compute capability 8.0; set it to auto or false"
            )
        if wanted is False:
            env = {name: value for name, value in env.items() if name not in BATCH_INVARIANT}
        return env | visible | ({} if lacking or wanted is False else BATCH_INVARIANT)
    return env | {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, share.cores))}


def environment_elsewhere(config: Config, *, gpu: bool) -> dict[str, str]:
    """The environment of a server on another machine, without what is known there only, and without its key.

    Whether `BATCH_INVARIANT` belongs to it depends on the GPUs that it finds there.
    """
    given = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    return given | _settings(config, gpu)


def _settings(config: Config, gpu: bool) -> dict[str, str]:
    """Return the environment of every server, on any machine."""
    settings = {
        "PYTHONPATH": str(CODE),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": config.workers.log_level.upper(),
        "HF_HUB_OFFLINE": "1",
    }
    if gpu:
        # The order of nvidia-smi, whose indices divide the GPUs among servers.
        return settings | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    # The engine computes in its own process. Another one for that takes a third of the time to start, and passes every
    # step on; what it is there for, variables that are set before a process begins, the engine's process has as well.
    return settings | {
        "VLLM_CPU_KVCACHE_SPACE": str(config.workers.kv_cache_gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
