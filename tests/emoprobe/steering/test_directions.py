"""Directions fitted on activations, and read from files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save, save_file

from emoprobe.analysis.steering.fitted_texts import fitted_texts
from emoprobe.config.files import parse_config
from emoprobe.config.science.steering import DirectionFile
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError, ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.steering.directions import MAKERS, DirectionError, Stream, fit, read_direction
from emoprobe.steering.grid import SteeringGrid, text_blocks

LAYERS, WIDTH, SAMPLES = 3, 8, 16
VARIANTS = {
    "control": {},
    "filler": {"text": "A table.", "valence": "neutral"},
    "joy": {"text": "Wonderful!", "valence": "positive"},
}


def capture(folder: Path, values: np.ndarray, empty: bool = False) -> None:
    """An activation folder with `resid_post` at two positions, the second of which has the values."""
    content = save({"resid_post": np.stack([np.zeros_like(values), values], axis=1).astype(np.float32)})
    positions = [{"name": "response_first", "span": [1, 2]}, {"name": "last_prompt", "span": [0, 1], "empty": empty}]
    metadata = {
        "dtype": "float32", "layers": list(range(len(values))), "hook_points": ["resid_post"], "positions": positions,
        "token_ids": [1, 2], "shapes": {}, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
    }  # fmt: skip
    atomic.write_bytes(folder / "activations.safetensors", content)
    atomic.write_json(folder / "metadata.json", metadata)


@pytest.fixture
def planted(tmp_path: Path) -> tuple[SteeringGrid, Layout, dict[str, np.ndarray]]:
    """An experiment whose activations are noise, of which every text adds something and joy more; and what they are."""
    config = parse_config(
        {
            "dataset": {"samples": SAMPLES},
            "variants": VARIANTS,
            "steering": {
                "enabled": True,
                "methods": ["diff_means", "probe"],
                "files": {"mine": {"path": "mine.safetensors"}},
                "controls": {"random": 2, "shuffled": 1},
            },
        }
    )
    generator, layout = np.random.default_rng(1), Layout.of("pilot", tmp_path)
    plan = SteeringGrid(config, (None,) * SAMPLES, LAYERS)
    text, joy = generator.standard_normal((2, LAYERS, WIDTH))
    base = generator.standard_normal((SAMPLES, LAYERS, WIDTH)) * 3
    values = {}
    for variant, shift in (("control", 0 * text), ("filler", text), ("joy", text + joy)):
        values[variant] = base + shift + 0.1 * generator.standard_normal(base.shape)
        for place in range(SAMPLES):
            capture(layout.activations(variant, f"gsm8k_{place + 1:04d}"), values[variant][place])
    fitted = {name: array[plan.halves.fitted] for name, array in values.items()}
    save_file({"direction": generator.standard_normal(WIDTH)}, tmp_path / "mine.safetensors")
    return plan, layout, fitted


def rows(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return found


def made(planted: tuple[SteeringGrid, Layout, Any], name: str) -> np.ndarray:
    plan, layout, fitted = planted
    fit(plan, layout, name, layout.root.parent)
    tensors = load_file(layout.direction(name))
    assert tensors["direction"].dtype == tensors["direction.norm"].dtype == np.float32
    assert np.allclose(np.linalg.norm(tensors["direction"], axis=1), 1, atol=1e-6)
    assert np.allclose(tensors["direction.norm"], np.median(np.linalg.norm(fitted["control"], axis=2), axis=0))
    found: np.ndarray = tensors["direction"]
    return found


def test_a_tone_is_the_difference_of_means_of_the_fitting_half(planted: Any) -> None:
    fitted = planted[2]
    assert np.allclose(made(planted, "joy"), rows((fitted["joy"] - fitted["filler"]).mean(0)), atol=1e-6)


def test_the_probe_is_the_shrunken_discriminant(planted: Any) -> None:
    plan, _, fitted = planted
    gamma, found = plan.config.probes.shrinkage, made(planted, "probe-joy")
    for layer in range(LAYERS):
        ours, theirs = fitted["joy"][:, layer], fitted["filler"][:, layer]
        scale = np.concatenate([ours, theirs]).std(0)
        ours, theirs = ours / scale, theirs / scale
        centred = np.concatenate([ours - ours.mean(0), theirs - theirs.mean(0)])
        within = centred.T @ centred / len(centred)
        shrunken = (1 - gamma) * within + gamma * np.trace(within) / WIDTH * np.eye(WIDTH)
        expected = np.linalg.solve(shrunken, ours.mean(0) - theirs.mean(0)) / scale
        assert np.allclose(found[layer], rows(expected), atol=1e-5)


def test_the_orthogonal_control_has_nothing_of_what_any_text_adds(planted: Any) -> None:
    fitted = planted[2]
    text, joy, found = (
        rows((fitted["filler"] - fitted["control"]).mean(0)),
        made(planted, "joy"),
        made(planted, "orthogonal-joy"),
    )
    assert np.abs((found * text).sum(1)).max() < 1e-6
    assert ((found * joy).sum(1) > 0).all()


def test_controls_follow_from_seed_and_name(planted: Any) -> None:
    first, second, shuffled = (made(planted, name) for name in ("random-01", "random-02", "shuffled-joy-01"))
    content = planted[1].direction("random-01").read_bytes()
    assert np.array_equal(first, made(planted, "random-01"))
    assert planted[1].direction("random-01").read_bytes() == content
    assert np.abs((first * second).sum(1)).max() < 0.99
    # With as many questions exchanged as not, nothing of the tone is left but noise.
    assert np.abs((shuffled * made(planted, "joy")).sum(1)).max() < 0.99


def test_a_vector_of_a_file_is_that_of_every_layer(planted: Any) -> None:
    found = made(planted, "mine")
    own = load_file(planted[1].root.parent / "mine.safetensors")["direction"]
    assert np.allclose(found, rows(np.stack([own] * LAYERS)), atol=1e-6)


def test_captures_that_failed_are_left_out(planted: Any) -> None:
    plan, layout, fitted = planted
    ActivationFolder.write_failure(layout.activations("joy", plan.fitted[0]), "no server answered")
    expected = (fitted["joy"] - fitted["filler"])[1:].mean(0)
    assert np.allclose(made(planted, "joy"), rows(expected), atol=1e-6)


def test_what_stands_in_for_a_missing_part_is_no_difference(planted: Any) -> None:
    plan, layout, fitted = planted
    for place, sample in enumerate(plan.fitted):
        capture(layout.activations("filler", sample), fitted["filler"][place], empty=True)
    with pytest.raises(DirectionError, match=r"no question of the fitting half .* joy and filler"):
        fit(plan, layout, "joy")


def test_what_was_not_captured_is_told(planted: Any) -> None:
    plan, layout, _ = planted
    other = plan.config.steering.fit.model_copy(update={"position": "response_last"})
    config = plan.config.model_copy(update={"steering": plan.config.steering.model_copy(update={"fit": other})})
    with pytest.raises(ActivationError, match="no resid_post at response_last"):
        fit(SteeringGrid(config, plan.groups, LAYERS), layout, "joy")


@pytest.mark.parametrize(
    ("tensor", "settings", "message"),
    [
        (np.ones(WIDTH + 1), {}, r"has 9 values, the model's stream 8"),
        (np.ones((2, WIDTH)), {}, r"shape \[2, 8\]; accepted"),
        (np.ones((2, 2, WIDTH)), {}, "shape"),
        (np.ones(WIDTH), {"key": "other"}, r"has no tensor 'other' \(it has direction\)"),
        (np.ones((5, WIDTH)), {"row": 5}, "no row 5"),
        (np.ones(WIDTH), {"row": 0}, "no row 0"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, tensor: np.ndarray, settings: dict[str, Any], message: str) -> None:
    save_file({"direction": tensor}, tmp_path / "mine.safetensors")
    with pytest.raises(DirectionError, match=message):
        read_direction(DirectionFile(path="mine.safetensors", **settings), tmp_path, LAYERS, WIDTH)


def test_a_row_of_a_matrix_is_a_vector_for_all_layers(tmp_path: Path) -> None:
    decoder = np.random.default_rng(1).standard_normal((5, WIDTH))
    save_file({"decoder": decoder}, tmp_path / "features.safetensors")
    found = read_direction(DirectionFile(path="features.safetensors", key="decoder", row=3), tmp_path, LAYERS, WIDTH)
    assert np.allclose(found, np.stack([decoder[3]] * LAYERS))


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("missing", "text"):
        with pytest.raises(DirectionError, match="cannot be read"):
            read_direction(DirectionFile(path=f"{name}.safetensors"), tmp_path, LAYERS, WIDTH)


def shared_texts(texts: int, questions: int) -> tuple[SteeringGrid, Stream]:
    """A grid whose questions share texts, and a stream in which each text of joy points along an axis of its own."""
    own = {name: {"texts": [f"{name} {number}" for number in range(texts)]} for name in ("filler", "joy")}
    variants = {"control": {}, "filler": own["filler"], "joy": {**own["joy"], "valence": "positive"}}
    settings = {"enabled": True, "controls": {"random": 0, "shuffled": 2}}
    plan = SteeringGrid(
        parse_config({"dataset": {"samples": 2 * questions}, "variants": variants, "steering": settings}),
        (None,) * (2 * questions),
        1,
    )
    asked = np.array(plan.halves.fitted) % texts
    values = {"control": np.zeros((questions, 1, texts)), "filler": np.zeros((questions, 1, texts))}
    return plan, Stream({**values, "joy": np.eye(texts)[asked][:, None]}, [0], plan.fitted)


def test_labels_are_shuffled_over_texts() -> None:
    plan, stream = shared_texts(24, 120)
    for name in ("shuffled-joy-01", "shuffled-joy-02"):
        (row,) = MAKERS["shuffled"](plan, plan.directions[name], stream)
        counts = stream.values["joy"].sum((0, 1))
        kept = row > 0
        # All questions of a text are on one side, and what all texts share is on neither.
        assert np.allclose(row[kept], counts[kept] / counts[kept].sum() / 2)
        assert np.allclose(row[~kept], -counts[~kept] / counts[~kept].sum() / 2)
        assert kept.sum() == 12


def test_texts_that_share_questions_are_one_block() -> None:
    texts = {"a": [("joy", 0), ("filler", 0)], "b": [("joy", 1), ("filler", 1)], "c": [("joy", 0), ("filler", 2)]}
    assert text_blocks(texts) == {"a": 0, "b": 1, "c": 0}
    assert text_blocks(texts | {"d": [("joy", 1), ("filler", 2)]}) == dict.fromkeys("abcd", 0)
    assert text_blocks({"a": [], "b": []}) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("questions", "texts", "shuffled", "expected"),
    [(24, 24, {}, 24), (48, 24, {}, 0), (48, 24, {"shuffled_over": "texts"}, 24), (20, 24, {}, 20), (64, 8, {}, 8)],
)
def test_what_a_direction_was_fitted_on_is_read_off_its_file(
    tmp_path: Path, questions: int, texts: int, shuffled: dict[str, str], expected: int
) -> None:
    """Labels that were shuffled over questions which share texts, as earlier versions did, do not count."""
    layout, samples = Layout.of("pilot", tmp_path), [f"q_{number:02d}" for number in range(questions)]
    made = {"tone": "joy", "reference": "filler", "samples": samples}
    for name, own in (("joy", {"family": "tone"}), ("shuffled-joy-01", {"family": "shuffled", **shuffled})):
        content = save({"direction": np.zeros((1, 2))}, {"direction": json.dumps(made | own)})
        atomic.write_bytes(layout.direction(name), content)
    table = pd.DataFrame(
        [(name, sample, place % texts) for name in ("joy", "filler") for place, sample in enumerate(samples)],
        columns=["variant", "sample_id", "paraphrase"],
    ).astype({"paraphrase": "Int64"})
    names = ["joy", "shuffled-joy-01"]
    assert fitted_texts(layout, table, names) == {"joy": expected}
    assert fitted_texts(layout, table, [*names, "shuffled-joy-02"])["joy"] == expected
    # A reference without known texts has the same one everywhere.
    assert fitted_texts(layout, table[table["variant"] == "joy"], ["joy"]) == {"joy": 1}
    assert fitted_texts(Layout.of("other", tmp_path), table, names) == {}
