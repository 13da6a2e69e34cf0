"""How the workflow's own process is set up: signals, garbage collection, and the plan that its jobs read."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from emoprobe.config.errors import ConfigError
from emoprobe.config.study import Study
from emoprobe.results import atomic


def in_thread(handler: Callable[..., Any]) -> Callable[..., None]:
    """A signal handler that does its work in a thread of its own.

    Snakemake 9.27's handler of SIGTERM takes the scheduler's lock, which the code that it interrupts may hold: then a
    run would wait for itself, for ever.
    """
    if getattr(handler, "runs_in_thread", False):
        return handler

    @wraps(handler)
    def start(*arguments: Any) -> None:
        threading.Thread(target=handler, args=arguments).start()

    start.runs_in_thread = True  # type: ignore[attr-defined]
    return start


def hardware() -> str:
    """`cuda` on a machine with NVIDIA's driver, else `cpu`: which lock and which environment fit."""
    return "cpu" if shutil.which("nvidia-smi") is None else "cuda"


def collect_garbage_less() -> None:
    """Let the garbage collector look less often.

    A plan is hundreds of thousands of objects that all stay: planning is 15 % faster for it.
    """
    gc.set_threshold(200_000, 20, 100)


def plan_folder(study: Study, parent: Path) -> Path:
    """The absolute path of the folder with the resolved configs of a plan, which is named by their content."""
    content = atomic.to_json({name: config.resolved() for name, config in study.configs.items()})
    return (parent / hashlib.sha256(content.encode()).hexdigest()[:16]).resolve()


def write_plan(study: Study, folder: Path) -> None:
    """Write each experiment's resolved config as `{experiment}.json`: jobs may outlive a change of the user's file.

    A folder that is there holds the same already.
    """
    if not folder.is_dir():
        # Another process may write the same at the same time.
        with atomic.directory(folder, [f"{name}.json" for name in study.configs]) as temporary:
            for name, config in study.configs.items():
                (temporary / f"{name}.json").write_text(atomic.to_json(config.resolved()), encoding="utf-8")


def check_text(study: Study, *paths: Path) -> None:
    """Check that paths and the configuration are text: servers, requests and JSON files hold UTF-8 alone.

    Args:
        study: the plan.
        paths: the folders of the run, absolute.

    Raises:
        ConfigError: a folder's name is not UTF-8, or a value holds half a surrogate pair.
    """
    wrong = [path for path in dict.fromkeys(paths) if not _is_text(str(path))]
    lines = [
        f"{os.fsencode(path)!r}: the path is not UTF-8; rename the folder, or start the run in another one"
        for path in wrong
        if not any(other in path.parents for other in wrong)
    ]
    lines += [
        f"{name}: {key} = {value!a}: is not UTF-8"
        for name, config in study.configs.items()
        for key, value in _texts(config.resolved(), "")
        if not _is_text(f"{key}{value}")
    ]
    if lines:
        raise ConfigError(lines)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text below a value with its dotted key."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)
    elif isinstance(value, str):
        yield key, value
