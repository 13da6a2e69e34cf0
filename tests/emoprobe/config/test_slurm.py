"""What a shape of SLURM job says of its time and its GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.execution.slurm import SlurmShape, minutes


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 90.0),
        ("90:30", 90.5),
        ("04:00:00", 240.0),
        ("1-0", 1440.0),
        ("1-12", 2160.0),
        ("1-00:30", 1470.0),
        ("2-01:02:30", 2942.5),
        ("UNLIMITED", None),
        ("4h", None),
        ("", None),
    ],
)
def test_time_limits_are_read_as_slurm_does(time: str, expected: float | None) -> None:
    assert minutes(time) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, 0),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:2"}, 2),
        ({"gres": "gpu:a100:4"}, 4),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "lscratch:100,gpu:v100:2"}, 2),
        ({"gres": "lscratch:100"}, 0),
        ({"extra": ["--gpus-per-node=h100:2"]}, 2),
        ({"extra": ["--gpus=1"]}, 1),
        ({"extra": ["--account=gpu:7"]}, 0),
    ],
)
def test_a_shape_tells_how_many_gpus_a_job_has(shape: dict[str, Any], expected: int) -> None:
    assert SlurmShape(**shape).gpus == expected
