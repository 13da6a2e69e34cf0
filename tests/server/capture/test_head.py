"""Log-probabilities of given tokens are the model's own, whatever it does with and after its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from server.capture.head import Head
from server.capture.model import ForwardInput, ServedModel
from tests.emoprobe.models.families import GROUPED, SIZES
from tests.server.capture import tiny_models

# What each family does beside one call of its head.
KINDS: dict[str, dict[str, Any]] = {
    "hyperclovax": {"logits_scaling": 0.125},  # multiplies
    "granite": {"logits_scaling": 8.0},  # divides
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"head_dim": 16, "final_logit_softcapping": 3.0},
    "modernbert-decoder": {"cls_token_id": 1, "sep_token_id": 2},  # has a layer before it
    "llama": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_models_own(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AutoConfig.for_model(kind, **SIZES | GROUPED | KINDS[kind])
    monkeypatch.setattr(tiny_models, "config", lambda family: settings)
    folder = tiny_models.make_of_family(kind, tmp_path)
    served = ServedModel(str(folder), "tiny", "float32", "cpu")
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = list(range(5, 40, 3))
    (scored,) = served.forward([ForwardInput(ids, [], [], None, torch.float32, True)])
    with torch.inference_mode():
        logs = torch.log_softmax(reference.eval()(torch.tensor([ids])).logits[0].float(), dim=-1)
    expected = logs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert scored.scores is not None
    assert torch.allclose(torch.tensor(scored.scores.token), expected, atol=1e-4)
    # The layers that lent their place are back.
    assert torch.allclose(served.causal(torch.tensor([ids])).logits[0].log_softmax(-1), logs, atol=1e-4)


def test_the_models_own_code_is_asked_only_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for kind in ("granite", "hyperclovax"):

        def note(_: Head, hidden: torch.Tensor, kind: str = kind) -> torch.Tensor:
            asked.append(kind)
            return torch.zeros(len(hidden), SIZES["vocab_size"])

        monkeypatch.setattr(Head, "_of_model", note)
        settings = AutoConfig.for_model(kind, **SIZES | GROUPED | KINDS[kind])
        model: Any = AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]
        Head(model.eval(), model.base_model, SIZES["vocab_size"]).logits(torch.zeros(2, SIZES["hidden_size"]))
    assert asked == ["hyperclovax"]
