"""Functions of the user's that the config names as `module:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from emoprobe.extras import EXTRAS, how_to_install


@cache
def load_function(key: str, reference: str, raised: type[ValueError]) -> Callable[..., Any]:
    """Import a `module:function`.

    Args:
        key: of the config that names it, for messages.
        reference: the function.
        raised: the type of the error.

    Raises:
        ValueError: of that type: there is no such module or function.
    """
    module, _, path = reference.partition(":")
    try:
        target: Any = importlib.import_module(module)
        for attribute in path.split("."):
            target = getattr(target, attribute)
    except Exception as error:
        package = module.partition(".")[0]
        install = (
            f"To install it: {how_to_install(package)}."
            if package in EXTRAS
            else "The module must lie beside the Snakefile, in the working directory, or be installed."
        )
        raise raised(f"{key}: {reference} cannot be imported ({type(error).__name__}: {error}). {install}") from error
    if not callable(target):
        raise raised(f"{key}: {reference} is no function")
    function: Callable[..., Any] = target
    return function


# Data beside a module, with its name, that counts as part of it.
DATA = (".csv", ".json", ".jsonl", ".txt", ".yaml")


def source_sha256(reference: str) -> str | None:
    """Return the hash of the source of the module of a `module:function`; None where there is no such file.

    Files of data beside it that have its name, such as `rewrites.jsonl` beside `rewrites.py`, are part of it.
    """
    try:
        spec = importlib.util.find_spec(reference.partition(":")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    source = Path(spec.origin)
    contents = [source.read_bytes()]
    for suffix in DATA:
        if (path := source.with_suffix(suffix)).is_file():
            contents += [path.name.encode(), path.read_bytes()]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def source_of(reference: str) -> str:
    """Return a reference to a function with the hash of its module's source, where it has one."""
    sha256 = source_sha256(reference)
    return reference if sha256 is None else f"{reference}@{sha256}"


def raised_by(key: str, reference: str, error: Exception) -> str:
    """Return the message about a function of the user's that raised an error."""
    return f"{key}: {reference} raised {type(error).__name__}: {error}{_line_of(error)}"


def _line_of(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
