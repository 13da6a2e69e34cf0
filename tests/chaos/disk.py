"""Disks that are full or read-only, and a clock that jumps. Mounting a small disk takes the rights of root."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.scene import PAIRS, Fault, Scene, captures, nnsight_trajectories, stubs

DAY = 86_400.0
FULL = "one clear reason a job, nothing half-written; a re-run finishes once there is room"


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[None]:
    """Mount a small tmpfs over a folder, with what was there."""
    folder.mkdir(exist_ok=True)
    kept = folder.with_name(f"{folder.name}-kept")
    subprocess.run(["cp", "-a", folder, kept], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
        yield
        subprocess.run(["cp", "-aT", folder, f"{kept}-end"], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    # The scene goes on with what the disk held.
    subprocess.run(["cp", "-aT", f"{kept}-end", folder], check=True)


def can_mount() -> bool:
    """Whether this user may mount a disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def fill(folder: Path, leave: int) -> Path:
    """Fill a disk up to so many bytes; return the file that does."""
    status = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave)))
    return ballast


def nothing_half_written(scene: Scene) -> None:
    """No temporary file is left, and what has a final name is whole."""
    root = scene.workspace.layout.root
    assert not list(root.rglob(".*")), list(root.rglob(".*"))
    for path in root.glob("*/*/trajectory.jsonl"):
        assert path.read_bytes().endswith(b"}\n")
        assert {entry.name for entry in path.parent.iterdir()} >= {"agent_state.json", "sample.json"}


def full_disk(leave: int) -> Callable[[Scene], str]:
    """The disk with the results runs full in mid-run."""

    def inject(scene: Scene) -> str:
        with small_disk(scene.folder / "results"):
            ballast = fill(scene.folder / "results", leave)
            output = scene.run(ok=False)
            assert "No space left on device" in output, output[-3000:]
            nothing_half_written(scene)
            root = scene.workspace.layout.root
            before = [len(list(root.glob(each))) for each in ("*/*/trajectory.jsonl", "activations/*/*/metadata.json")]
            ballast.unlink()
            scene.run()
        return f"told, {before[0]} trajectories and {before[1]} captures whole, complete with room"

    return inject


def read_only(scene: Scene) -> str:
    results = scene.folder / "results"
    with small_disk(results):
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        output = scene.run(ok=False)
        assert "ead-only file system" in output, output[-3000:]
        assert not [request for server in scene.servers for request in server.requests()]
        subprocess.run(["mount", "-o", "remount,rw", results], check=True)
        scene.run()
    return "one clear error, nothing asked of a server; complete when it can be written"


def clock_jump(seconds: float) -> Callable[[Scene], str]:
    """Half of the experiment was made while the clock was ahead, or behind."""

    def inject(scene: Scene) -> str:
        layout = scene.workspace.layout
        half = [str(layout.pair("calm", f"gsm8k_000{number}") / "trajectory.jsonl") for number in (1, 2)]
        scene.workspace.run(*(path.removeprefix(f"{scene.folder}/") for path in half))
        date = time.time() + seconds
        for path in (scene.folder / "results").rglob("*"):
            os.utime(path, (date, date))
        scene.run()
        asked = sum(len(server.requests()) for server in scene.servers)
        assert asked == PAIRS, f"{asked} requests: something was made twice"
        assert scene.workspace.planned(*scene.goal) == {}
        return "complete, nothing made twice, nothing planned afterwards"

    return inject


MOUNTS = ("full_disk_at_a_trajectory", "full_disk_at_a_capture", "read_only_results")
FAULTS = {
    "full_disk_at_a_trajectory": Fault(FULL, full_disk(110_000)),
    "full_disk_at_a_capture": Fault(FULL, full_disk(90_000), captures, nnsight_trajectories),
    "read_only_results": Fault("one clear error, nothing is asked", read_only),
    "clock_went_back": Fault("complete, nothing made twice", clock_jump(DAY), stubs),
    "clock_went_ahead": Fault("complete, nothing made twice", clock_jump(-DAY), stubs),
}
