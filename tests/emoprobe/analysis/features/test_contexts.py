"""Top contexts: the tokens on which a feature is most active, each sort of context once."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from emoprobe.analysis.features.baselines import Projection
from emoprobe.analysis.features.contexts import top_contexts
from emoprobe.analysis.features.tokens import TokenActivations
from tests.emoprobe.analysis.features.planted import LENGTH, SYSTEM, shard, table


def test_top_contexts(tmp_path: Path) -> None:
    rows = table(4, {"control": 0})
    shards = []
    for number in range(4):
        values = torch.zeros(LENGTH, 2)
        values[6, 0] = float(number + 1)
        values[0, 0] = 99.0  # before the start, which no context shows
        values[8, 1] = -1.0
        ids = [100 * (0 if number == 2 else number) + place for place in range(LENGTH)]
        shards.append(shard(tmp_path / str(number), values, ids))
    tokens = TokenActivations(rows, shards, 1, 2)
    coder = Projection(torch.zeros(2), torch.eye(2))
    found = top_contexts(tokens, coder, [0, 1], 3, lambda ids: [f"t{one}" for one in ids])
    # The third and the first have the same tokens; the second feature is never above zero.
    assert [(row["feature"], row["rank"], row["activation"]) for row in found] == [
        (0, 1, 4.0),
        (0, 2, 3.0),
        (0, 3, 2.0),
    ]
    first = found[0]
    assert (first["sample_id"], first["token"], first["part"]) == ("s_0004", 6, "question")
    texts, activations = json.loads(first["tokens"]), json.loads(first["activations"])
    assert texts[first["place"]] == "t306"
    assert texts[0] == f"t{300 + SYSTEM}"
    assert activations[first["place"]] == 4.0
    assert len(texts) == len(activations)
    assert top_contexts(tokens, coder, [], 3, lambda ids: []) == []
