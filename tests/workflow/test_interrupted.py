"""Scripts that are interrupted while they work, which a FIFO holds: one line in their log, and no traceback."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PATIENCE
from tests.copies.copy import Order, launch
from tests.workspace import ROOT, Workspace, wait_for


def is_read(fifo: Path) -> bool:
    """Whether a process sleeps while it reads a FIFO, which gets no content.

    A signal that arrives between `open` and `read` is only noted: Python calls its handler once `read` has returned.
    """
    if fifo not in _WRITERS:
        try:
            _WRITERS[fifo] = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
    return any(_sleeps(reader.parent.parent) for reader in Path("/proc").glob("[0-9]*/fd/*") if _is(reader, fifo))


def _is(descriptor: Path, file: Path) -> bool:
    with suppress(OSError):
        return descriptor.parent.parent.name != str(os.getpid()) and os.readlink(descriptor) == str(file)
    return False


def _sleeps(process: Path) -> bool:
    with suppress(OSError):
        return (process / "stat").read_text().rpartition(") ")[2].startswith("S")
    return False


_WRITERS: dict[Path, int] = {}


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("report_experiment", signal.SIGINT),
        ("report_experiment", signal.SIGTERM),
        ("probe_activations", signal.SIGTERM),
        ("draw_figures", signal.SIGINT),
        ("verify", signal.SIGTERM),
    ],
)
def test_an_interrupted_script_says_so_in_a_line(script: str, number: signal.Signals, tmp_path: Path) -> None:
    fifo = tmp_path / "config.json"
    os.mkfifo(fifo)
    arguments = ["--config", str(fifo), "--experiment", str(tmp_path)]
    order = Order(f"scripts.{script}", arguments, str(ROOT), dict(os.environ))
    with open(tmp_path / "log", "w") as log:
        process = launch(order, log, log, copied=False)
    wait_for(lambda: is_read(fifo), PATIENCE, "the script at its configuration")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert (tmp_path / "log").read_text() == f"interrupted by {number.name}\n"


def test_a_run_that_is_interrupted_in_its_report_says_so(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.layout.report.unlink()
    assert workspace.planned() == {"report_experiment": 1}
    # Its script reads the plan, which is no input.
    (fifo,) = workspace.folder.glob(".snakemake/emoprobe/*/tiny.json")
    content = fifo.read_text()
    fifo.unlink()
    os.mkfifo(fifo)
    copied, workspace.copied = workspace.copied, False
    process = workspace.start()
    try:
        wait_for(lambda: is_read(fifo) or process.poll() is not None, PATIENCE, "the report at its configuration")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    output = (workspace.folder / "snakemake.out").read_text()
    assert "Interrupted: report_experiment. What is done stays; run again to go on." in output, output
    assert "Traceback" not in output
    assert "What failed" not in output
    assert workspace.layout.log("report_experiment").read_text() == "interrupted by SIGINT\n"
    fifo.unlink()
    fifo.write_text(content)
    workspace.copied = copied
    assert "tiny: 16 trajectories" in workspace.run()
