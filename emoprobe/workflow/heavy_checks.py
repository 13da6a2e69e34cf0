"""Checks that import PyTorch or `datasets`, in a process of their own: a plan stays small and starts fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import Capture
from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.samples import DataError, Drawer
from emoprobe.models.directory import ModelError
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import placed
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.source import check_capture
from emoprobe.workflow.remembered import remembered

# How many rows at fault are named one by one, and how many of a generated data set are looked at.
MOST_NAMED, MOST_ROWS = 3, 10_000
TIMEOUT = 600.0  # seconds


class CheckFailedError(RuntimeError):
    """A check that gave no answer: its process ended early, or took too long."""


def row_problems(dataset: dict[str, Any], seed: int) -> list[str]:
    """Return what is wrong with the rows that an experiment draws, one line a row.

    Args:
        dataset: the section `dataset` as plain values.
        seed: of the experiment.
    """
    settings = Dataset.model_validate(dataset)
    try:
        drawer = Drawer(settings, seed)
    except DataError as error:
        return [str(error)]
    lines: list[str] = []
    more = 0
    for index in range(settings.samples):
        try:
            drawer.sample(index)
        except DataError as error:
            if len(lines) < MOST_NAMED:
                lines.append(str(error))
            else:
                more += 1
    return [*lines, f"dataset.source: {more} more of the {settings.samples} rows drawn are at fault"] if more else lines


def capture_problems(directory: str, captures: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return why activations of a model cannot be captured, one line each.

    Args:
        directory: of the model; its configuration is read, not its weights.
        captures: what a message begins with, and a section `capture` as plain values.
    """
    lines: list[str] = []
    for where, capture in captures:
        try:
            check_capture(Capture.model_validate(capture), Path(directory), where)
        except ModelError as error:
            lines.append(str(error))
    return list(dict.fromkeys(lines))


def placement_lines(directory: str, config: dict[str, Any], dtype: str, memory: list[float]) -> list[str]:
    """Return how servers share GPUs, behind `yes`, or why they cannot, behind `no`; nothing where it is not known.

    Args:
        directory: of the model.
        config: the experiment as plain values.
        dtype: of the computation.
        memory: of each GPU, GB.
    """
    settings, servers = Config.model_validate(config), ServerHardware("gpu", tuple(memory))
    try:
        placement = placed(settings, Path(directory), servers, dtype)
    except PlacementError as error:
        return ["no", str(error)]
    return [] if placement is None else ["yes", str(placement)]


CHECKS: dict[str, Callable[..., list[str]]] = {
    "rows": row_problems,
    "capture": capture_problems,
    "placement": placement_lines,
}


def ask(check: str, *arguments: Any) -> list[str]:
    """Return the answer of one of `CHECKS` from a process of its own, whose working directory is this one's.

    Raises:
        CheckFailedError: it gives none.
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, check],
            input=json.dumps(arguments), capture_output=True, text=True, timeout=TIMEOUT,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        lines: list[str] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        raise CheckFailedError(f"the check of {check} gave no answer ({error})") from None
    return lines


def unless_unanswered(cache: Path | None, about: Any, check: Callable[[], list[str]]) -> list[str]:
    """The answer of a check; none where its process gave none, which the job that needs it finds out as well."""
    try:
        return remembered(cache, about, check)
    except CheckFailedError:
        return []


def main() -> None:
    """Read the arguments of a check from standard input, and write its lines as JSON to the last line of the output."""
    print("\n" + json.dumps(CHECKS[sys.argv[1]](*json.load(sys.stdin))))


if __name__ == "__main__":
    main()
