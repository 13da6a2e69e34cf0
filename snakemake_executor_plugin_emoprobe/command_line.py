"""Options of the command line that would end in a traceback of Snakemake, or never end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT = "config/config.yaml"


class OptionError(ValueError):
    """An option that cannot be read; the message is one line."""


def check_config_options(arguments: Sequence[str]) -> None:
    """Check `--config` and the files of `--configfile`; what else is wrong with them is left to the Snakefile.

    Raises:
        OptionError: a key has a dot in it, or a file is no text or exceeds a bound; one line.
    """
    for entry in _values(arguments, ("--config", "-C")):
        key, equals, _ = entry.partition("=")
        section, dot, path = key.partition(".")
        if equals and dot:
            nested = "…"  # the value may be a secret
            for step in reversed(path.split(".")):
                nested = f"{{{step}: {nested}}}"
            raise OptionError(f"--config {key}: a section is a mapping; write --config '{section}={nested}'")
    known = set(sys.modules)
    try:
        _check_files(_values(arguments, ("--configfile", "--configfiles")) or [DEFAULT])
    finally:
        # The Snakefile decides which library is used: the one beside it, which need not be the installed one.
        for name in set(sys.modules) - known:
            if name.partition(".")[0] == "emoprobe":
                del sys.modules[name]


def _check_files(paths: Sequence[str]) -> None:
    try:
        from emoprobe.config.errors import BoundsError, ConfigError
        from emoprobe.config.reading import read_yaml
    except ImportError:  # another workflow's Python may not have the library
        return
    for path in paths:
        try:
            if Path(path).is_file():
                read_yaml(path)
        except BoundsError as error:
            raise OptionError(str(error)) from None
        except ConfigError:
            continue  # the Snakefile names it, if it is the one of this workflow


def _values(arguments: Sequence[str], options: tuple[str, ...]) -> list[str]:
    """The values of an option that takes several, in each of its places."""
    values: list[str] = []
    taking = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            taking = name in options
            values += [value] if taking and equals else []
        elif taking:
            values.append(argument)
    return values
