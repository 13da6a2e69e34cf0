"""How the tone of a prompt changes what a language model does and what goes on inside it.

The names below are the public interface for notebooks and other workflows; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emoprobe.analysis.trajectory_table import load_trajectories
    from emoprobe.config.files import load_config
    from emoprobe.finished import Results
    from emoprobe.results.activations import load_activations
    from emoprobe.results.tables import read_table

__version__ = "0.2.0"
__all__ = ["Results", "load_activations", "load_config", "load_trajectories", "read_table"]

_HOMES = {
    "Results": "emoprobe.finished",
    "load_activations": "emoprobe.results.activations",
    "load_config": "emoprobe.config.files",
    "load_trajectories": "emoprobe.analysis.trajectory_table",
    "read_table": "emoprobe.results.tables",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import emoprobe` costs nothing."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'emoprobe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
