"""The probes' step: the device against the CPU, twice, and the time of a cell."""

from __future__ import annotations

import time

import numpy as np
import torch

from emoprobe.analysis.probes.all_probes import Findings, run_probes
from tests.emoprobe.analysis import synthetic
from tests.gpu.steps import Figures, Setting

PERMUTATIONS = 199
NARROW = 64
# Areas differ where rounding changes the order of rows: by a pair or two of the thousands that they count.
LARGEST_DIFFERENCE = 1e-3


def probes(setting: Setting) -> Figures:
    """Compare the probes of two cells on the device with those on the CPU, and with themselves.

    With more features than rows, whose time is taken, and with fewer.
    """
    samples, wide, permutations = (12, 150, 19) if setting.tiny else (160, 4096, PERMUTATIONS)
    _compared(setting, samples, NARROW, permutations)
    return _compared(setting, samples, wide, permutations)


def _compared(setting: Setting, samples: int, d: int, permutations: int) -> Figures:
    config = synthetic.config(synthetic.BALANCED, permutations=permutations)
    table = synthetic.table(config, samples, 0)
    source = synthetic.source(table, 1, d, 0)

    def found(device: str) -> Findings:
        return run_probes(table, source, config, device=torch.device(device))

    here = found("cpu")
    found(setting.device)  # libraries and kernels are loaded by the first run
    started = time.monotonic()
    there = found(setting.device)
    seconds = (time.monotonic() - started) / len(source.positions)
    again = found(setting.device)
    assert there.device.type == setting.device, f"the probes ran on {there.device}, not on {setting.device}"
    assert there.probes == again.probes, "a second run differs from the first"
    different = largest_difference(here, there)
    assert different <= LARGEST_DIFFERENCE, f"areas differ from those of the CPU by up to {different:.2g}"
    return {
        "rows": len(table), "d": d, "permutations": permutations, "seconds_per_cell": round(seconds, 3),
        "largest_difference": different,
    }  # fmt: skip


def largest_difference(one: Findings, other: Findings) -> float:
    """Return the largest difference between areas of two runs."""
    areas = [np.array([row["auroc"] for row in found.probes], dtype=float) for found in (one, other)]
    return float(np.abs(areas[0] - areas[1]).max())
