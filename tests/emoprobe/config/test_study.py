"""Studies: experiments from a base and patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import load_study, study_of
from emoprobe.config.reading import merged

BASE = {"dataset": {"samples": 4}, "variants": {"control": {}, "calm": {"text": "All is still."}}}
GRID = {
    "task": {"sums": {"dataset": {"source": "gsm8k"}}, "words": {}},
    "shots": {"plain": None, "terse": {"prompt": {"system": None, "template": "{question}"}}},
}


def test_every_combination_is_an_experiment_of_its_own() -> None:
    found = study_of({"study": {"name": "s"}, "base": BASE, "grid": GRID})
    assert found.name == "s"
    assert list(found.configs) == ["s-sums-plain", "s-sums-terse", "s-words-plain", "s-words-terse"]
    assert [config.experiment.name for config in found.configs.values()] == list(found.configs)
    assert found.configs["s-sums-terse"].dataset.source == "gsm8k"
    assert found.configs["s-sums-terse"].dataset.samples == 4
    assert found.configs["s-sums-terse"].prompt.template == "{question}"
    assert found.configs["s-sums-terse"].prompt.system is None
    assert found.configs["s-words-plain"].prompt.system is not None


def test_experiments_can_be_listed() -> None:
    listed = {"small": {"dataset": {"samples": 2}}, "large": {"dataset": {"samples": 8}}}
    found = study_of({"study": {"name": "s"}, "base": BASE, "experiments": listed})
    assert {name: config.dataset.samples for name, config in found.configs.items()} == {"s-small": 2, "s-large": 8}


def test_one_experiment_is_a_plan_of_one() -> None:
    found = study_of({"experiment": {"name": "alone"}})
    assert found.name is None
    assert list(found.configs) == ["alone"]


def test_a_base_is_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE, sort_keys=False))
    study = {"study": {"name": "s"}, "base": "base.yaml", "patch": {"dataset": {"samples": 3}}, "grid": GRID}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    found = load_study(tmp_path / "study.yaml")
    assert all(list(config.variants) == ["control", "calm"] for config in found.configs.values())
    assert all(config.dataset.samples == 3 for config in found.configs.values())


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {"b": None}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_patches(base: Any, patch: Any, expected: Any) -> None:
    before = repr(base)
    assert merged(base, patch) == expected
    assert repr(base) == before


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"study": {}, "grid": GRID}, ["study.name", "missing"]),
        ({"study": {"name": "s"}}, ["either grid or experiments"]),
        ({"study": {"name": "s"}, "grid": GRID, "experiments": {"a": {}}}, ["either grid or experiments"]),
        ({"study": {"name": "s"}, "grid": {"task": {}}}, ["grid.task has no patches"]),
        ({"study": {"name": "a/b"}, "grid": GRID}, ["study.name", "no valid name"]),
        ({"study": {"name": "s"}, "experiments": {"a b": {}}}, ["'a b' is no valid name"]),
        ({"study": {"name": "s"}, "grids": GRID}, ["grids", "did you mean 'grid'"]),
        (
            {"study": {"name": "s"}, "base": "missing.yaml", "grid": GRID},
            ["base: ", "missing.yaml does not exist; the path is relative to the file of the study"],
        ),
        (
            {"study": {"name": "s"}, "grid": {"task": {"a": {}, "a-b": {}}, "prompt": {"b-c": {}, "c": {}}}},
            ["a with b-c and a-b with c give two experiments one name", "rename"],
        ),
        (
            {"study": {"name": "s"}, "grid": {f"axis{n}": {str(n): {} for n in range(9)} for n in range(20)}},
            [f"has {9**20} experiments, at most 10000"],
        ),
        (
            {"study": {"name": "s"}, "patch": {"dataset": {"sample": 3}}, "grid": GRID},
            ["dataset.sample: unknown key", "(in s-sums-plain, s-sums-terse, s-words-plain and 1 more)"],
        ),
    ],
)
def test_mistakes_are_told_once(study: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        study_of(study)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.count("unknown key") <= 1
