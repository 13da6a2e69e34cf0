"""Names that become folders and wildcards: of experiments, variants and samples."""

from __future__ import annotations

import re

CONTROL = "control"
FILLER = "filler"
# Folders of an experiment that hold something other than a variant.
RESERVED_NAMES = frozenset(
    {"activations", "benchmarks", "features", "figures", "logs", "probes", "samples", "steering", "tables", "models"}
)
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?$"
MAX_NAME = 64


def check_name(name: str) -> str:
    """Return the name if it can be a folder's name and a wildcard.

    Raises:
        ValueError: it has other characters, is too long, or is taken by the layout.
    """
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise ValueError(f"{name!r} is no valid name: letters, digits, _ and - inside, at most {MAX_NAME} characters")
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a folder of the results; choose another name")
    return name
