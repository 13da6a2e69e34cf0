"""Which targets an experiment has, and how others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.results.layout import Layout
from emoprobe.workflow.targets import KINDS, Targets, UnknownTargetError, directory_targets

SECTIONS: dict[str, Any] = {
    "experiment": {"name": "e"},
    "dataset": {"samples": 4, "id_prefix": "sum"},
    "variants": {"control": {}, "joy": {"text": "Lovely!", "valence": "positive"}, "calm": {"text": "It is quiet."}},
    "generation": {"draws": 2, "temperature": 0.7},
    "capture": {"samples": 2},
}


def targets(**sections: Any) -> Targets:
    config = parse_config({**SECTIONS, **sections})
    return Targets(config, Layout.of("e"))


def test_variants_of_a_question_are_made_together() -> None:
    known = targets()
    assert known.pairs[:4] == [
        ("control", "sum_0001"),
        ("joy", "sum_0001"),
        ("calm", "sum_0001"),
        ("control", "sum_0001-d2"),
    ]
    assert [name for _, name in known.captured] == [
        name for name in ("sum_0001", "sum_0001-d2", "sum_0002", "sum_0002-d2") for _ in range(3)
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("sample", ("sum_0004",)), ("trajectory", ("joy", "sum_0004-d2")), ("activations", ("joy", "sum_0002-d2"))],
)
def test_what_the_config_contains_is_a_target(kind: str, name: tuple[str, ...]) -> None:
    targets().require(kind, *name)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("sample", ("sum_0005",), "no sample sum_0005; it has samples: sum_0001, sum_0002, sum_0003, sum_0004"),
        ("sample", ("other_0001",), "no sample other_0001"),
        ("trajectory", ("calm", "other_0001"), "variants: calm, control, joy; samples: sum_0001, sum_0001-d2"),
        ("trajectory", ("calm", "sum_0001-d3"), "no trajectory calm/sum_0001-d3"),
        ("trajectory", ("nag", "sum_0001"), "no trajectory nag/sum_0001"),
        ("activations", ("calm", "sum_0003"), "samples: sum_0001, sum_0001-d2, sum_0002, sum_0002-d2"),
        ("tokens", ("calm", "sum_0001"), "it has none (features.enabled is false)"),
        ("direction", ("joy",), "it has none (steering.enabled is false)"),
        ("steered", ("none", "control", "sum_0001"), "it has none (steering.enabled is false)"),
        ("autoencoder", ("seed-1",), "it has none (features.enabled is false)"),
        ("tabulate_steering", (), "nothing that tabulate_steering makes"),
        ("analyze_features", (), "nothing that analyze_features makes"),
    ],
)
def test_other_targets_are_refused_with_what_there_is(kind: str, name: tuple[str, ...], words: str) -> None:
    with pytest.raises(UnknownTargetError) as refused:
        targets().require(kind, *name)
    assert str(refused.value).startswith("results/e has no")
    assert words in str(refused.value)


def test_without_captures_there_are_no_activations() -> None:
    with pytest.raises(UnknownTargetError, match=r"has no activations joy/sum_0001: it has none \(capture.enabled is"):
        targets(capture={"enabled": False}).require("activations", "joy", "sum_0001")
    with pytest.raises(UnknownTargetError, match="nothing that list_activations makes"):
        targets(capture={"enabled": False}).require("list_activations")


def test_directions_doses_conditions_and_seeds_are_those_of_the_config() -> None:
    capture = {"layers": [8], "hook_points": ["resid_post"]}
    steered = targets(
        generation={},
        dataset={"source": "gsm_symbolic", "samples": 8, "id_prefix": "sum"},
        capture=capture,
        steering={"enabled": True, "layers": [8], "variants": ["control"], "doses": [0.4]},
        features={"enabled": True, "layer": 8},
    )
    known = min(name for name in steered._names["steered"] if name[0].startswith("joy/add"))
    steered.require("steered", *known)
    steered.require("direction", "joy")
    steered.require("autoencoder", sorted(steered._names["autoencoder"])[0][0])
    for kind, name in [
        ("direction", ("anger",)),
        ("steered", (known[0].replace("d0.4", "d0.8"), *known[1:])),
        ("steered", (known[0].replace("L8", "L9"), *known[1:])),
        ("steered", (*known[:2], "sum_0099")),
        ("autoencoder", ("seed-99",)),
    ]:
        with pytest.raises(UnknownTargetError, match="; it has"):
            steered.require(kind, *name)


def test_every_kind_has_its_names() -> None:
    assert set(targets()._names) == set(KINDS)


@pytest.mark.parametrize(
    ("word", "files"),
    [
        ("results/e/joy", 3 * 8),
        ("results/e/joy/", 3 * 8),
        ("./results/e/joy/sum_0003", 3),
        ("results/e/joy/sum_0003-d2", 3),
        ("results/e/activations/joy", 2 * 4),
        ("results/e/activations/joy/sum_0002", 2),
    ],
)
def test_a_folder_stands_for_its_files(word: str, files: int) -> None:
    (found,) = directory_targets({"e": targets()}, ["-n", word]).items()
    assert found[0] == word
    assert len(found[1]) == files
    assert all(path.startswith(word.strip("./")) for path in found[1])


@pytest.mark.parametrize(
    "word",
    [
        "-n",
        "all",
        "results",
        "results/e",
        "results/e/tables",
        "results/e/tables/accuracy.parquet",
        "/",
        "results/f/joy",
    ],
)
def test_other_words_are_no_folders(word: str) -> None:
    assert directory_targets({"e": targets()}, [word]) == {}


@pytest.mark.parametrize(
    "word",
    [
        "results/e/joyy",
        "results/e/joyy/sum_0001",
        "results/e/joy/sum_0009",
        "results/e/activations/joy/sum_0003",
        "results/e/activations/nag",
    ],
)
def test_an_unknown_folder_is_refused(word: str) -> None:
    with pytest.raises(UnknownTargetError, match="; it has variants: "):
        directory_targets({"e": targets()}, [word])
