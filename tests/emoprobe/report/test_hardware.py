"""The report says on what the answers were computed where that matters."""

from __future__ import annotations

import pandas as pd

from emoprobe.analysis.limits import hardware_limits
from emoprobe.report.statements.notes import notes

H100 = "NVIDIA H100 80GB HBM3 (compute capability 9.0)"
T4 = "Tesla T4 (compute capability 7.5)"


def noted(*hardware: str | None) -> dict[str, str]:
    table = pd.DataFrame({"hardware": pd.Series(hardware, dtype="string")})
    return {statement.about: statement.text for statement in notes(hardware_limits(table))}


def test_one_model_of_gpu_needs_no_note() -> None:
    assert noted(H100, H100, None) == {}
    assert noted("CPU Intel(R) Xeon(R)") == {}
    assert hardware_limits(pd.DataFrame({"correct": [True]})) == []


def test_a_mix_is_said_with_its_counts() -> None:
    text = noted(H100, H100, "NVIDIA A10 (compute capability 8.6)")
    assert set(text) == {"data:hardware"}
    assert f"{H100} (2 answers)" in text["data:hardware"]
    assert "NVIDIA A10 (compute capability 8.6) (1 answer)" in text["data:hardware"]


def test_reproducibility_is_per_batch_on_an_old_gpu() -> None:
    assert "per batch" in noted(T4)["data:batches"]
    assert set(noted(T4, H100)) == {"data:hardware", "data:batches"}
    assert H100 not in noted(T4, H100)["data:batches"]
    assert "per batch" in noted(f"{H100} + {T4}")["data:batches"]
