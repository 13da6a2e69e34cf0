"""Steering from end to end on a model whose answer one direction flips by construction: it is found, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from emoprobe.analysis.steering.effect_grid import Limits
from emoprobe.analysis.steering.tables import analyze, steering_tests
from emoprobe.steering.grid import LEAST_TEXTS
from server.capture.edits import LayerEdit, SequenceEdits, layer_edits
from server.capture.engine import ChoiceState, Cohort
from server.capture.model import ForwardInput, ServedModel
from server.capture.prompts import Decoder
from server.capture.schema import StreamEdit
from tests.server.capture import planted_model
from tests.server.capture.planted_model import FLIP, FLIPPED_AT, LAYERS, QUESTIONS, RIGHT, VARIANTS, parts, token

DOSES = (-0.1, 0.1)
TOKENS = 12
LIMITS = Limits(max_perplexity=2.0, max_repetition=0.1)
TEXTS = {"anger": LEAST_TEXTS}  # it is known by its construction, not through its one token
FITTED = QUESTIONS // 2  # the first half; the rest is steered
KEYS = ("direction", "family", "tone", "operation", "phase", "layers", "dose", "variant", "sample_id")
NONE = ("none", "none", None, None, None, None, 0.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return ServedModel(str(planted_model.make(tmp_path_factory.mktemp("planted"))), "planted", "float32", "cpu")


@pytest.fixture(scope="module")
def steered(served: ServedModel) -> pd.DataFrame:
    """The table `steering` of the direction that flips the answer at every layer, beside 39 random ones and 20 with
    shuffled labels, and of its ablations.
    """
    stream = fitting_half(served)
    norm = stream["control"].norm(dim=2).median(dim=1).values
    generator = torch.Generator().manual_seed(1)
    tone = parts()[FLIP].expand(LAYERS, -1)
    directions = {f"random-{number:02d}": torch.randn(tone.shape, generator=generator) for number in range(1, 40)}
    found: list[tuple[tuple[Any, ...], tuple[LayerEdit, ...]]] = []
    differences = stream["anger"] - stream["control"]
    signs = torch.ones(FITTED)
    signs[1::2] = -1.0
    for number in range(1, 21):
        order = torch.randperm(FITTED, generator=generator)
        directions[f"shuffled-{number:02d}"] = (differences * signs[order][:, None]).mean(1)
    for name, vectors in {"anger": tone, **directions}.items():
        family, owner = ("random", None) if name.startswith("random") else (name.split("-")[0], "anger")
        family = "tone" if name == "anger" else family
        for layer in range(LAYERS):
            for dose in DOSES:
                found += cases((name, family, owner, "add", "all", str(layer), dose), "control",
                               edits(served, vectors[layer], layer, norm[layer], dose))  # fmt: skip
            if name == "anger":
                for variant in VARIANTS:
                    found += cases((name, family, owner, "ablate", "all", str(layer), 1.0), variant,
                                   edits(served, vectors[layer], layer, norm[layer], None))  # fmt: skip
    for variant in VARIANTS:
        found += cases(NONE, variant, ())
    return answered(served, found)


def fitting_half(served: ServedModel) -> dict[str, torch.Tensor]:
    """Variant → the stream at the last token of its prompts, (layers, questions, d)."""
    found = {}
    for variant in VARIANTS:
        wanted = [
            ForwardInput([1, token(question, variant)], list(range(LAYERS)), ["resid_post"], None, torch.float32)
            for question in range(FITTED)
        ]
        found[variant] = torch.stack([one.activations["resid_post"][:, -1] for one in served.forward(wanted)], dim=1)
    return found


def edits(
    served: ServedModel, vector: torch.Tensor, layer: int, norm: torch.Tensor, dose: float | None
) -> tuple[LayerEdit, ...]:
    values = (vector / vector.norm() * norm).tolist()
    edit: dict[str, Any] = {"values": values, "layers": [layer], "operation": "ablate" if dose is None else "add"}
    return layer_edits([StreamEdit(**edit, **({} if dose is None else {"dose": dose}))], Path(), served.architecture)


def cases(what: tuple[Any, ...], variant: str, own: tuple[LayerEdit, ...]) -> list[Any]:
    return [((*what, variant, question), own) for question in range(FITTED, QUESTIONS)]


def answered(served: ServedModel, found: list[tuple[tuple[Any, ...], tuple[LayerEdit, ...]]]) -> pd.DataFrame:
    """Generate and score every case."""
    prompts = [[1, token(what[-1], what[-2])] for what, _ in found]
    rows = [
        ChoiceState(prompt, TOKENS, 0.0, 1.0, None, Decoder(served.tokens, []), lambda: None, True,
                   steering=SequenceEdits(own, 2) if own else None)
        for prompt, (_, own) in zip(prompts, found, strict=True)
    ]  # fmt: skip
    cohort = Cohort(served, list(rows))
    while cohort.rows:
        cohort.step()
    gold = served.forward([
        ForwardInput([*prompt, RIGHT], [], [], None, torch.float32, True, steering=SequenceEdits(own, 2) if own else None)
        for prompt, (_, own) in zip(prompts, found, strict=True)
    ])  # fmt: skip
    plain = served.forward(
        [
            ForwardInput([*prompt, *row.token_ids], [], [], None, torch.float32, True)
            for prompt, row in zip(prompts, rows, strict=True)
        ]
    )
    values = []
    for (what, _), row, scored, text in zip(found, rows, gold, plain, strict=True):
        assert scored.scores is not None
        assert text.scores is not None
        values.append(
            dict(zip(KEYS, what, strict=True))
            | {
                "draw": 1, "group": None, "correct": row.token_ids[0] == RIGHT, "log_p_gold": scored.scores.token[-1],
                "completion_tokens": len(row.token_ids), "repetition": 0.0, "kl": 0.0,
                "perplexity": float(np.exp(-np.mean(text.scores.token[-TOKENS:]))),
            }
        )  # fmt: skip
    table = pd.DataFrame(values).astype({"correct": "boolean", "completion_tokens": "Int64"})
    return table.assign(sample_id=table["sample_id"].map("q_{:02d}".format))


def test_the_model_does_as_it_is_built(steered: pd.DataFrame) -> None:
    bare = steered[steered["family"] == "none"].groupby("variant")["correct"].mean()
    assert bare.to_dict() == {"control": 1.0, "anger": 0.0}


def test_the_difference_of_means_is_the_direction(served: ServedModel) -> None:
    stream = fitting_half(served)
    fitted = (stream["anger"] - stream["control"]).mean(1)[FLIPPED_AT]
    assert float(fitted @ parts()[FLIP] / fitted.norm()) > 0.9


def test_the_direction_is_found_at_its_layer(steered: pd.DataFrame) -> None:
    test = steering_tests(steered, LIMITS, TEXTS).iloc[0]
    assert (test["direction"], test["verdict"], test["layers"]) == ("anger", "found", str(FLIPPED_AT))
    assert (test["p_random"], test["p_shuffled"]) == pytest.approx((1 / 40, 1 / 21))
    assert test["high"] < 0 < test["dose"]
    assert test["correct"] == -1.0


def test_at_other_layers_it_is_not(steered: pd.DataFrame) -> None:
    others = steered[steered["layers"] != str(FLIPPED_AT)]
    assert steering_tests(others, LIMITS, TEXTS)["verdict"].tolist() == ["not_found"]


def test_random_directions_are_not(steered: pd.DataFrame) -> None:
    """Each of some random ones in the tone's place, the tone's own left out; that one of forty is the first is no news."""
    without = steered[steered["direction"] != "anger"]
    names = [name for name in without["direction"].unique() if name.startswith("random")]
    extra = without[without["direction"] == names[0]].assign(direction="spare")
    found = []
    for name in names[:8]:
        own = without["direction"] == name
        swapped = without.assign(family=without["family"].mask(own, "file"), tone=None)
        found.append(steering_tests(pd.concat([swapped, extra]), LIMITS, TEXTS)["verdict"].item())
    assert found.count("found") <= 1


def test_ablation_undoes_the_tone(steered: pd.DataFrame) -> None:
    trajectories = steered[steered["family"] == "none"].assign(paraphrase=pd.array([None], dtype="Int64")[0])
    told = pd.DataFrame([{"variant": "anger", "reference": "control", "measure": "correct", "verdict": "different"}])
    table = analyze(steered, LIMITS, TEXTS, trajectories, told)["steering_mediation"]
    rows: dict[Any, Any] = {(row["outcome"], row["layers"]): row for row in table.to_dict("records")}
    at, before = rows["correct", str(FLIPPED_AT)], rows["correct", "0"]
    assert (at["effect"], at["ablated"], at["change"]) == (-1.0, 0.0, 1.0)
    assert at["low"] > 0.5
    assert (before["ablated"], before["change"]) == (-1.0, 0.0)
    log_p = rows["log_p_gold", str(FLIPPED_AT)]
    assert log_p["share"] == pytest.approx(1.0, abs=0.1)
    assert log_p["share_low"] <= log_p["share"] <= log_p["share_high"]
