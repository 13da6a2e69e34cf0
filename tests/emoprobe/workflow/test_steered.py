"""What makes directions again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.results.layout import Layout
from emoprobe.workflow.steered import SteeredTargets


def made_from(tmp_path: Path, samples: int, fit: dict[str, Any]) -> dict[str, str]:
    """The digests of the directions of an experiment."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"question": "{number} + 1?", "answer": "{number + 1}"}}\n' for number in range(20)))
    config = parse_config(
        {
            "experiment": {"name": "steered"},
            "dataset": {"source": str(data), "samples": samples},
            "variants": {
                "control": {},
                "filler": {"text": "There are trees."},
                "joy": {"text": "Wonderful!", "valence": "positive"},
            },
            "capture": {"hook_points": ["resid_post"], "positions": ["last_prompt"]},
            "steering": {"enabled": True, "layers": [15], "fit": fit, "controls": {"random": 1, "shuffled": 1}},
        }
    )
    return SteeredTargets.of(config, Layout.of("steered")).made_from


@pytest.mark.parametrize("samples", [8, 16])
def test_the_number_of_samples_makes_directions_again_unless_their_questions_are_fixed(
    tmp_path: Path, samples: int
) -> None:
    before, after = made_from(tmp_path, 12, {}), made_from(tmp_path, samples, {})
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    assert made_from(tmp_path, 12, {"questions": 4}) == made_from(tmp_path, samples, {"questions": 4})
