"""Keys of the first version that have another place now, or none, or another range."""

from __future__ import annotations

import copy
from typing import Any

MOVED = {
    "workers.max_model_len": "generation.engine.max_model_len",
    "workers.tensor_parallel": "generation.engine.tensor_parallel",
    "workers.compile": "generation.engine.compile",
    "workers.extra_args": "generation.engine.extra_args",
    "generation.timeout": "workers.timeout",
    "capture.batch_tokens": "workers.batch_tokens",
    "capture.memory_gib": "workers.memory_gib",
}
# What is needed no longer: probes choose a cell and not a strength, and no interval is drawn from resamples.
GONE = ("probes.inner_folds", "probes.strengths", "probes.bootstrap")
# Least values that were lower once.
LEAST = {"probes.permutations": 19}


def with_moved_keys(values: Any) -> Any:
    """A copy of plain values with every key of the first version at its present place and in its present range."""
    if not isinstance(values, dict):
        return values
    found = copy.deepcopy(values)
    for old, new in MOVED.items():
        section, _, key = old.partition(".")
        if isinstance(found.get(section), dict) and key in found[section]:
            value = found[section].pop(key)
            *path, last = new.split(".")
            place = found
            for step in path:
                place = place.setdefault(step, {})
            place.setdefault(last, value)
    for name in (*GONE, *LEAST):
        section, _, key = name.partition(".")
        if not isinstance(found.get(section), dict) or key not in found[section]:
            continue
        if name in GONE:
            del found[section][key]
        elif isinstance(found[section][key], int):
            found[section][key] = max(LEAST[name], found[section][key])
    return found
