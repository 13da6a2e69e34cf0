"""Run the NNsight server: python -m server --model DIRECTORY --port PORT."""

from __future__ import annotations

import argparse
import ctypes
import ipaddress
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from server.guard import KEY_VARIABLE, NONCE_VARIABLE, Guard

if TYPE_CHECKING:
    from server.capture.activations import Pusher


# Parameters of mallopt, from <malloc.h> of glibc, which accepts at most 32 MiB for the second.
MALLOC_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 32 << 20), "M_TRIM_THRESHOLD": (-1, 128 << 20)}


def parse_arguments() -> argparse.Namespace:
    """The command line. The API key comes from the environment, where no list of processes shows it."""
    parser = argparse.ArgumentParser(prog="python -m server", description="OpenAI-compatible server over NNsight.")
    parser.add_argument("--model", required=True, help="directory or Hugging Face id")
    parser.add_argument("--served-model-name", help="what requests call it (default: --model)")
    parser.add_argument("--host", default="127.0.0.1", help=f"other addresses demand an API key in {KEY_VARIABLE}")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--activation-root", type=Path, default=Path("activations"), help="nothing is written elsewhere"
    )
    parser.add_argument("--push", metavar="URL", help="where to push activations (s3://bucket/prefix …) if asked to")
    parser.add_argument("--push-settings", metavar="JSON", default="{}", help="keys of the section storage: part_mib …")
    parser.add_argument(
        "--batch-tokens", type=token_budget, default=4096, help="tokens of one forward pass; auto: by the GPU's memory"
    )
    parser.add_argument(
        "--memory-gib",
        type=float,
        default=4.0,
        help="bound on activations in flight, on caches, on the rest of requests",
    )
    parser.add_argument("--request-timeout", type=float, default=3600.0, help="seconds that one request may take")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args()
    if not is_loopback(arguments.host) and not os.environ.get(KEY_VARIABLE):
        parser.error(f"--host {arguments.host} can be reached from elsewhere: set an API key in {KEY_VARIABLE}")
    return arguments


def token_budget(text: str) -> int | None:
    """Read `--batch-tokens`: a number, or None for `auto`."""
    return None if text == "auto" else int(text)


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_pusher(arguments: argparse.Namespace) -> Pusher | None:
    """Return the object that pushes activations; None if none does. Exit if the store cannot be used."""
    if arguments.push is None:
        return None
    from emoprobe.config.execution.storage import Storage
    from server.capture.activations import Pusher

    try:
        return Pusher(arguments.push, Storage.model_validate_json(arguments.push_settings))
    except ValueError as error:
        sys.exit(f"--push {error}")


def keep_freed_memory() -> None:
    """Make glibc allocate all but the largest tensors from one heap that shrinks late; call it before threads start.

    By default the kernel maps and clears every page of a new tensor: up to a seventh of the time of a pass on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in MALLOC_OPTIONS.values():
            mallopt(option, value)


def main() -> None:
    """Load the model, warm up, then listen: a server that answers is ready."""
    arguments = parse_arguments()
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    keep_freed_memory()
    import torch
    import uvicorn

    from emoprobe.text import first_line
    from server.capture.activations import ActivationWriter
    from server.capture.app import create_app
    from server.capture.engine import BatchEngine, measured_batch_tokens
    from server.capture.limits import LimitedProtocol, LocalOnly, connection_limit
    from server.capture.model import ServedModel
    from server.capture.service import Service

    # Two threads on two cores: as many as this process may use, not as many as the machine has.
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(min(threads, int(os.environ.get("OMP_NUM_THREADS", threads))))
    name = arguments.served_model_name or arguments.model
    pusher = make_pusher(arguments)
    try:
        # In a thread that ends, and its team of OpenMP threads with it: beside the engine's team there would be more
        # threads than cores, and those sleep instead of waiting for the next operation.
        with ThreadPoolExecutor(1) as loader:
            model = loader.submit(ServedModel, arguments.model, name, arguments.dtype, arguments.device).result()
    except Exception as error:  # the libraries raise whatever a directory or a missing package runs into
        logging.getLogger("server").debug("the model cannot be loaded", exc_info=True)
        sys.exit(f"--model {arguments.model}: {first_line(error)}")
    tokens = arguments.batch_tokens or measured_batch_tokens(model)
    engine = BatchEngine(model, tokens, int(arguments.memory_gib * 2**30))
    app = create_app(
        Service(model, engine, ActivationWriter(arguments.activation_root), pusher),
        os.environ.get(KEY_VARIABLE) or None,
        arguments.request_timeout,
    )
    if not os.environ.get(KEY_VARIABLE):
        app.add_middleware(LocalOnly, host=arguments.host)
    if os.environ.get(NONCE_VARIABLE):
        app.add_middleware(Guard)
    LimitedProtocol.limit = connection_limit()
    # Clients keep connections for 5 s by default: a server that closes them as early closes some that are in use again.
    uvicorn.run(
        app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False, backlog=4096,
        timeout_keep_alive=75, http=LimitedProtocol, ws="none",
    )  # fmt: skip
    engine.close()


if __name__ == "__main__":
    main()
