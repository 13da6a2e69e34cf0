"""How many texts the directions of an experiment were fitted on, from their files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open

from emoprobe.config.section import CONTROL
from emoprobe.results.layout import Layout
from emoprobe.steering.directions import KEY, SHUFFLED_OVER
from emoprobe.steering.grid import LEAST_TEXTS, text_blocks


def fitted_texts(layout: Layout, trajectories: pd.DataFrame, names: Iterable[str]) -> dict[str, int]:
    """Tone → number of blocks of texts that its directions and their controls were fitted on, the least of all.

    0 where labels were shuffled over questions that share texts although there are texts enough, as by version 0.2.

    Args:
        layout: the experiment, with the files of its directions.
        trajectories: the table of that name, which has the text of each question.
        names: of directions; those that belong to no tone are left out.
    """
    known = trajectories.drop_duplicates(["variant", "sample_id"]).set_index(["variant", "sample_id"])["paraphrase"]
    counts: dict[str, int] = {}
    for name in names:
        made = _made(layout.direction(name))
        tone = made.get("tone")
        if tone is None:
            continue
        sides = [side for side in (tone, made.get("reference")) if side != CONTROL]
        texts = {
            sample: [(side, _number(known.get((side, sample)))) for side in sides] for sample in made.get("samples", [])
        }
        count = len(set(text_blocks(texts).values()))
        shared = LEAST_TEXTS <= count < len(texts)
        if made.get("family") == "shuffled" and shared and made.get(SHUFFLED_OVER) != "texts":
            count = 0
        counts[tone] = min(count, counts.get(tone, count))
    return counts


def _number(text: Any) -> int | None:
    """The number of a text; None where it is not known."""
    return None if text is None or pd.isna(text) else int(text)


def _made(path: Path) -> dict[str, Any]:
    """What the file of a direction says of how it was made; empty where there is none."""
    try:
        with safe_open(path, "np") as tensors:
            found: dict[str, Any] = json.loads((tensors.metadata() or {}).get(KEY, "{}"))
    except (OSError, SafetensorError, ValueError):
        return {}
    return found
