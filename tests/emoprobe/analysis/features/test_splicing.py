"""Cross-entropy under a replaced layer, equal to passes by hand on Hugging Face's model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from emoprobe.analysis.features.quality import Losses, SplicedModel, losses
from tests.emoprobe.analysis.features.planted import LENGTH, SYSTEM, shard

LAYER = 1
IDS = [5, 9, 2, 44, 8, 31, 7, 6, 100, 12, 3, 77, 21, 30]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_losses_are_those_of_the_model(tiny: Callable[[str], Path], tmp_path: Path, architecture: str) -> None:
    directory = tiny(architecture)
    text = shard(tmp_path / "text", torch.zeros(LENGTH, 48), IDS)
    reference: Any = AutoModelForCausalLM.from_pretrained(directory)
    layers = reference.model.layers if architecture == "llama" else reference.transformer.h
    found = losses(
        SplicedModel(directory, "float32", LAYER),
        [text, text],
        {"same": lambda x: x, "half": lambda x: 0.5 * x},
    )
    assert found.tokens == 2 * (LENGTH - SYSTEM - 1)

    def by_hand(factor: float) -> float:
        def change(_module: object, _args: object, output: object) -> object:
            hidden = output[0] if isinstance(output, tuple) else output
            assert isinstance(hidden, torch.Tensor)
            changed = torch.cat([hidden[:, :SYSTEM], factor * hidden[:, SYSTEM:]], dim=1)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = layers[LAYER].register_forward_hook(change)
        with torch.no_grad():
            scores = reference(torch.tensor([IDS])).logits[0].log_softmax(-1)
        handle.remove()
        return -float(sum(scores[place - 1, IDS[place]] for place in range(SYSTEM + 1, LENGTH))) / (LENGTH - SYSTEM - 1)

    assert found.plain == pytest.approx(by_hand(1.0), rel=1e-5)
    assert found.spliced["same"] == pytest.approx(found.plain, rel=1e-6)
    assert found.spliced["half"] == pytest.approx(by_hand(0.5), rel=1e-5)
    assert found.zero == pytest.approx(by_hand(0.0), rel=1e-5)
    assert found.recovered("same") == pytest.approx(1)


def test_what_is_recovered() -> None:
    found = Losses(10, 2.0, 6.0, {"good": 3.0, "useless": 6.0})
    assert found.recovered("good") == 0.75
    assert found.recovered("useless") == 0.0
