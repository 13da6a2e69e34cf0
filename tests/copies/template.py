"""The process that is copied: python -m tests.copies.template ADDRESS."""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from setproctitle import getproctitle, setproctitle

from emoprobe.workflow import code
from server.orphan import end_with_parent
from tests.copies.copy import TEMPLATE, Order
from tests.workspace import ROOT

CAPTURE = ("uvicorn", "server.capture.app", "transformers.models.llama.modeling_llama")
# What a command imports, besides the module that it is. Scripts import the same, and what their own module does.
IMPORTED = {
    "snakemake": (
        # What the command and the Snakefile import.
        "snakemake.cli",
        "snakemake.executors.local",
        "snakemake.scheduling.greedy",
        "emoprobe.report.figures",
        "emoprobe.workflow.checks",
        "emoprobe.workflow.inputs",
        "emoprobe.workflow.live_servers",
        "emoprobe.workflow.lost_jobs",
        "emoprobe.workflow.outcome",
        "emoprobe.workflow.targets",
        "server.deploy.deployment",
        "server.pool.client",
        "snakemake_executor_plugin_emoprobe",
        "snakemake_scheduler_plugin_emoprobe",
        "pandas",  # to compare the params of jobs
        "smart_open",
    ),
    "scripts": (
        "matplotlib.backends.backend_svg",
        "matplotlib.figure",
        "pandas",
        "pyarrow.dataset",
        "pyarrow.parquet",
        "scipy.stats",
        "textblob",
        "transformers.models.auto.modeling_auto",
        # What loads the tokenizer of a tiny model.
        "transformers.models.llama.configuration_llama",
        "transformers.tokenization_utils_tokenizers",
    ),
    "emoprobe.workflow.heavy_checks": ("emoprobe.models.architecture", "transformers.models.llama.modeling_llama"),
    "server.pool": ("httpcore", "server.pool.fleets", "server.pool.pool", "server.pool.run", "server.pool.start"),
    "server.pool.child": CAPTURE,
    "server": CAPTURE,
    "tests.stub_server": ("uvicorn",),
}
LONGEST_ORDER = 1 << 20


def start(address: Path) -> None:
    """Start the template of this process and of those that it starts; it ends with this process."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(address))
    listener.listen(64)
    with listener:
        subprocess.Popen(
            [sys.executable, "-m", "tests.copies.template", str(listener.fileno())],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
    os.environ[TEMPLATE] = str(address)


class Running:
    """A copy that runs, and the one who ordered it."""

    def __init__(self, order: Order, number: int, status: socket.socket) -> None:
        self._number, self._status = number, status
        self.ended = os.pidfd_open(number)
        # Of what is tied, the end of the other side as well.
        self.watched = (self.ended, status.fileno()) if order.tied else (self.ended,)
        self._tell(number)

    def _tell(self, number: int) -> None:
        with suppress(OSError):  # nobody listens any more
            self._status.send(str(number).encode())

    def end(self) -> None:
        """Kill it if it still runs, and tell of its end."""
        signal.pidfd_send_signal(self.ended, signal.SIGKILL)
        self._tell(os.waitstatus_to_exitcode(os.waitpid(self._number, 0)[1]))
        os.close(self.ended)
        self._status.close()


def main() -> None:
    """Be the template until the one that started it ends."""
    end_with_parent(signal.SIGTERM)
    listener = socket.socket(fileno=int(sys.argv[1]))
    getproctitle()  # finds the place of the title, which lies before that of the environment as it was at the start
    prepared: set[str] = set()
    running: dict[int, Running] = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number != listener.fileno():
                if number in running:
                    copy = running[number]
                    for each in copy.watched:
                        poll.unregister(each)
                        del running[each]
                    copy.end()
                continue
            status, _ = listener.accept()
            message, files, _, _ = socket.recv_fds(status, LONGEST_ORDER, 3)
            order = Order(**json.loads(message))
            if order.module not in prepared:
                prepare(order.module)
                prepared.add(order.module)
            child = os.fork()
            if child == 0:
                listener.close()
                status.close()
                become(order, files)
            for file in files:
                os.close(file)
            copy = Running(order, child, status)
            for each in copy.watched:
                running[each] = copy
                poll.register(each, select.POLLIN if each == copy.ended else 0)


def prepare(module: str) -> None:
    """Import what a command imports, but not the module that it runs."""
    is_script = module.startswith("scripts.")
    for name in IMPORTED.get("scripts" if is_script else module, ()):
        importlib.import_module(name)
    if module == "snakemake":
        importlib.import_module("snakemake.cli").get_argument_parser()  # collects the plugins of the environment
        code.closure("emoprobe.graders")  # reads all of the code, which a new folder would take a second for
    if is_script:
        importlib.import_module(module)
        del sys.modules[module]
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False  # what imports made is the template's to take apart; PyTorch's takes 50 ms
    gc.collect()
    gc.freeze()


def become(order: Order, files: list[int]) -> NoReturn:
    """Run an order to its end; files are its output, its errors and, where there is a third, its input."""
    if order.session:
        os.setsid()
    for source, target in zip(files, (1, 2, 0), strict=False):
        os.dup2(source, target)
        os.close(source)
    if order.input is not None:
        source = os.memfd_create("input")
        os.write(source, order.input.encode())
        os.lseek(source, 0, os.SEEK_SET)
        os.dup2(source, 0)
    os.environ.clear()
    os.environ.update(order.env)
    if order.tied:
        os.environ["EMOPROBE_PARENT"] = str(os.getppid())
    os.chdir(order.folder)
    sys.path[0] = order.folder
    if order.code is not None:
        sys.path.insert(1, order.code)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("emoprobe", "scripts", "server")]:
            del sys.modules[name]
    sys.path += [path for path in order.env.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.argv = [order.module, *order.arguments]
    setproctitle(" ".join([sys.executable, "-m", *sys.argv]))
    threads = order.env.get("OMP_NUM_THREADS")
    if threads and "torch" in sys.modules:  # which has read that of the template
        sys.modules["torch"].set_num_threads(int(threads))
    from tests.copies.inside import order_copies

    order_copies(order.module)
    leave(run(order.module))


def run(module: str) -> int:
    """Run a module as a command; return its exit status, or the negated number of the signal that it ends with."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """End as an interpreter does, without the last step: to free all that was imported costs more than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
