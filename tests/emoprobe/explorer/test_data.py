"""The explorer's data: where an answer is written, the index of words, sizes, projections, and that it is the same twice."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.explorer import search
from emoprobe.explorer.answers import answer_place
from emoprobe.explorer.conversations import MAX_TEXT, read_conversation
from emoprobe.explorer.files import write_data
from emoprobe.graders import grading
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Trajectory
from emoprobe.stages.explorer import write_explorer
from emoprobe.stages.trajectories import tabulate
from tests.emoprobe.explorer import scenes
from tests.workspace import ROOT


def data(layout: Layout, limit: int | None = None, config: Config | None = None) -> dict[str, Any]:
    """Name of a script → its value."""
    found: dict[str, Any] = {}

    def write(name: str, content: str) -> None:
        given, _, value = content.removeprefix("emoprobe(").removesuffix(")\n").partition(",")
        assert name == f"{json.loads(given)}.js"
        found[json.loads(given)] = json.loads(value)

    write_data(config or scenes.config(), layout, write, **({} if limit is None else {"limit": limit}))
    return found


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Answer: 8", "8"),
        ("3 + 5 = 8. The answer is $1,234.50. 8 is nice.", "$1,234.50"),
        ("First -3, and then -3 again.", "-3"),
        ("The answer is 12. Check: 12 - 2 = 10.", "12"),
        ("Answer: 3/4", "3/4"),
        ("Answer: 5 or 6", None),
        ("Answer: 5\n" + "x" * 30_000, None),
    ],
)
def test_an_answer_is_marked_where_the_grader_reads_it(completion: str, expected: str | None) -> None:
    extracted = grading.extract(completion).notation
    place = None if extracted is None else answer_place(completion, extracted)
    assert (None if place is None else completion[slice(*place)]) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("A is wrong. The answer is B.", "B"),
        ("(C) Rome", "C"),
        ("It must be Rome", "Rome"),
        ("Die Straße: ROME", "ROME"),
    ],
)
def test_a_letter_or_its_option_is_marked(completion: str, expected: str) -> None:
    choices = ("Paris", "Oslo", "Rome")
    extracted = grading.extract(completion, letters=True, choices=[*choices]).notation
    assert extracted is not None
    place = answer_place(completion, extracted, choices)
    assert place is not None
    assert completion[slice(*place)] == expected


def test_words_and_their_numbers() -> None:
    assert search.words("Don't PANIC, 東京 is_it 3.5 " + "y" * 99) == {
        *("don", "t", "panic", "東", "京", "is", "it", "3", "5", "y" * 32)
    }
    assert search.encoded([0, 1, 2, 3, 40, 41]) == "0 1*3 11 1"
    assert search.encoded([]) == ""


def test_a_scene(scene: Layout) -> None:
    found = data(scene)
    index = found["index"]
    rows = index["rows"]
    names = [variant for variant, _ in index["variants"]]
    assert set(names) == set(scenes.TEXTS)
    outcomes = {
        (names[variant], question, draw): outcome
        for variant, question, draw, outcome in zip(rows["v"], rows["q"], rows["d"], rows["o"], strict=True)
    }
    assert [outcomes["joy", question, 1] for question in range(6)] == ["r", "r", "w", "r", "r", "w"]
    assert [outcomes["gloom", question, 1] for question in range(3, 5)] == ["n", "l"]
    assert outcomes["joy", 0, 2] == "w"
    assert rows["t"].count("1") == 1
    page = found["c0"]
    joy = next(n for n, (v, q) in enumerate(zip(rows["v"], rows["q"], strict=True)) if (names[v], q) == ("joy", 2))
    row = next(row for row in page["rows"] if row["n"] == joy)
    text = page["texts"][row["m"][row["r"]][1]]
    message, start, end = row["a"]
    assert (message, text[start:end]) == (row["r"], "7")
    assert text[: row["m"][row["r"]][2]["h"]].endswith("</think>\n")
    assert page["texts"][row["m"][1][1]][slice(*row["p"][1:])] == scenes.TEXTS["joy"]
    assert row["f"]["completion_tokens"] == 13
    assert row["j"][0][:3] == ["polite", "judge-x", "false"]
    assert row["j"][1][2:] == ["", "no JSON object"]


def test_files_that_are_left_from_another_config_are_not_shown(scene: Layout) -> None:
    config = parse_config({"variants": {"control": {}}, "capture": {"enabled": False}})
    index = data(scene, config=config)["index"]
    assert [index[part] for part in ("steering", "inside", "tokens")] == [None] * 3
    assert None not in [data(scene)["index"][part] for part in ("steering", "inside", "tokens")]


def test_a_long_text_is_cut_and_says_so(scene: Layout) -> None:
    page = data(scene)["c0"]
    assert max(map(len, page["texts"])) == MAX_TEXT
    (cut,) = [extra["x"] for row in page["rows"] for *_, extra in row["m"] if isinstance(extra, dict) and "x" in extra]
    assert cut == len(scenes.LONG_LINE) - MAX_TEXT


def test_what_exceeds_the_limit_is_left_out_and_named(scene: Layout) -> None:
    found = data(scene, limit=10_000)
    assert set(found["index"]["pages"]) == {-1}
    assert "c0" not in found
    assert found["index"]["notes"][0].startswith("The conversations of 6 of 6 questions (q_0001 to q_0006) exceed")


def test_projections_are_those_computed_by_hand(scene: Layout) -> None:
    found = data(scene)
    index, scale = found["index"]["inside"], found["scale"]
    assert [name for name, _ in index["directions"]] == ["valence", "joy", "gloom"]
    values = scenes.activations()
    along = np.stack([values[pair][:, 1] for pair in values])  # (n, layers, d) at response_mean
    raw = (along * scenes.direction("response_mean")).sum(2)
    expected = (raw - raw.mean(0)) / raw.std(0)
    names = [variant for variant, _ in found["index"]["variants"]]
    rows = found["index"]["rows"]
    shape = len(index["directions"]), 1, len(scenes.LAYERS), len(scenes.POSITIONS)
    for row, encoded, spans in found["a0"]:
        pair = names[rows["v"][row]], f"q_{rows['q'][row] + 1:04d}"
        stored = np.frombuffer(base64.b64decode(encoded), np.int8).reshape(shape) / index["step"]
        place = list(values).index(pair)
        np.testing.assert_allclose(stored[1, 0, :, 1], expected[place], atol=0.5 / index["step"] + 1e-6)
        np.testing.assert_allclose(stored[2], -stored[1], atol=1e-6)
        assert spans == [[11, 12, 0], [12, 15, 0]]
    means = np.array(scale["means"]).reshape(shape)
    np.testing.assert_allclose(means[1, 0, :, 1], raw.mean(0), rtol=1e-3)


def test_tokens_are_projected_on_features_and_tones(scene: Layout) -> None:
    found = data(scene)
    index = found["index"]["tokens"]
    assert [name for name, _ in index["directions"]] == ["valence", "joy", "gloom", "feature-7"]
    pairs = list(scenes.activations())[:6]
    usual = np.concatenate([scenes.token_values(pair)[1:, 1] for pair in pairs])
    rows, names = found["index"]["rows"], [variant for variant, _ in found["index"]["variants"]]
    for row, encoded, texts in found["k0"]:
        pair = names[rows["v"][row]], f"q_{rows['q'][row] + 1:04d}"
        stored = np.frombuffer(base64.b64decode(encoded), np.int8).reshape(4, scenes.TOKENS) / index["step"]
        expected = (scenes.token_values(pair)[:, 1] - usual.mean()) / usual.std()
        np.testing.assert_allclose(stored[3], expected, atol=0.5 / index["step"] + 1e-6)
        assert texts == [f"<{token}>" for token in range(scenes.TOKENS)]  # there is no tokenizer


def test_tokens_in_object_storage_alone_are_counted(scene: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "copy")
    shutil.copytree(scene.root, layout.root)
    away, *_ = scenes.activations()
    (layout.tokens(*away) / TENSORS).unlink()
    found = data(layout)["index"]
    assert found["notes"][0].startswith("The tokens of 1 conversation are in object storage alone")
    assert found["tokens"]["rows"] != data(scene)["index"]["tokens"]["rows"]


def test_every_token_is_projected_on_differences_of_means_where_no_probe_was_fitted(tmp_path: Path) -> None:
    """With `capture.positions: all` no probe is fitted, as there are no named positions."""
    layout, generator = Layout(tmp_path), np.random.default_rng(0)
    shift = np.array([3.0, 0.0], dtype=np.float32)
    values = {
        (variant, f"q_{number}"): generator.normal(size=(3, 5, 2)).astype(np.float32) + (variant == "joy") * shift
        for variant in ("filler", "joy")
        for number in range(4)
    }
    for pair, tensor in values.items():
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "1"}]
        Trajectory(messages).write(layout.pair(*pair))
        folder = layout.activations(*pair)
        folder.mkdir(parents=True)
        save_file({"resid_post": tensor}, folder / TENSORS)
        metadata = ActivationMetadata(
            dtype="float32", layers=[0, 4, 8], hook_points=["resid_post"], positions="all", token_ids=[*range(5)],
            shapes={"resid_post": [3, 5, 2]},
        )  # fmt: skip
        atomic.write_json(folder / METADATA, metadata.values())
    variants = {"control": {}, "filler": {"text": "."}, "joy": {"text": "!"}}
    config = parse_config({"variants": variants, "capture": {"positions": "all"}})
    tabulate(config, layout, [*values])
    found = data(layout, config=config)
    index = found["index"]["tokens"]
    assert found["index"]["inside"] is None
    assert index["layer"] == 4
    assert index["directions"] == [["joy", "mean of joy minus mean of filler, over tokens of responses"]]
    means = {
        name: np.mean([values[name, f"q_{number}"][1, 1:].mean(0) for number in range(4)], axis=0)
        for name in ("joy", "filler")
    }
    unit = (means["joy"] - means["filler"]) / np.linalg.norm(means["joy"] - means["filler"])
    along = np.stack([values[pair][1] @ unit for pair in sorted(values, key=lambda pair: (pair[1], pair[0]))])
    expected = (along - along[:, 1:].mean()) / along[:, 1:].std()
    stored = [np.frombuffer(base64.b64decode(encoded), np.int8) / index["step"] for _, encoded, _ in found["k0"]]
    np.testing.assert_allclose(stored, expected, atol=0.5 / index["step"] + 1e-5)


def test_doses_of_a_condition_are_listed(scene: Layout) -> None:
    steering = data(scene)["index"]["steering"]
    assert {tuple(condition[1:]) for condition in steering["conditions"]} == {
        ("none", None, None, None, 0.0, "none"),
        ("joy", "add", "all", "1", -1.0, "joy/add-all/L1/d-1"),
        ("joy", "add", "all", "1", 2.0, "joy/add-all/L1/d2"),
    }
    shown = zip(steering["q"], steering["d"], steering["c"], strict=True)
    assert sorted(shown) == [(q, d, c) for q, d in ((4, 1), (5, 1), (5, 2)) for c in range(3)]


def test_it_is_the_same_in_another_process(scene: Layout) -> None:
    """Whose hashes of strings, and so the order of its sets, are others."""
    code = """
import sys
from pathlib import Path
from emoprobe.explorer.files import write_data
from emoprobe.results.layout import Layout
from tests.emoprobe.explorer import scenes
folder = Path(sys.argv[2])
write_data(scenes.config(), Layout(Path(sys.argv[1])), lambda name, content: (folder / name).write_text(content))
"""
    there = scene.explorer.parent / "data"
    again = scene.root.parent / "again"
    again.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, scene.root, again], check=True, env=environment)
    names = sorted(path.name for path in there.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert [(there / name).read_bytes() for name in names] == [(again / name).read_bytes() for name in names]


def test_a_folder_of_conversations_alone(tmp_path: Path) -> None:
    """What another program wrote: no state, no samples, no config, no gold answer."""
    layout = Layout(tmp_path)
    parts = [{"type": "text", "text": "5"}]
    Trajectory([{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}]).write(layout.pair("a", "1"))
    Trajectory([{"role": "user", "content": "only a question"}]).write(layout.pair("b", "1"))
    tabulate(Config(), layout, [("a", "1"), ("b", "1")])
    write_explorer(Config(), layout)
    assert layout.explorer.read_bytes().startswith(b"<!doctype html>")
    assert '"o":"uu"' in (layout.explorer.parent / "data/index.js").read_text()


def test_thoughts_of_earlier_turns_are_folded_as_well(tmp_path: Path) -> None:
    first, last = "<think>One and one.</think>\n\nAnswer: 2", "<think>Again.</think>\nAnswer: 3"
    messages = [
        {"role": "user", "content": "How much is 1 + 1?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Are you sure?"},
        {"role": "assistant", "content": last},
    ]
    Trajectory(messages).write(tmp_path)
    row = {"extracted": "3", "extraction": "marker", "compliant": True, "completion_tokens": 3}
    shown = read_conversation(tmp_path, row)
    assert [message.text[message.thought :] for message in shown.messages[1::2]] == ["Answer: 2", "Answer: 3"]
    assert shown.answer == (3, len(last) - 1, len(last))
