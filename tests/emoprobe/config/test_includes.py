"""`include`: files of a config that others share."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoprobe.config import reading
from emoprobe.config.errors import ConfigError
from emoprobe.config.files import load_config
from emoprobe.config.reading import merged, read_config_values, read_yaml, with_includes

TONES = "variants:\n  control: {}\n  calm: {text: All is quiet., valence: neutral}\n"


def write(path: Path, text: str) -> Path:
    """Write a file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def error_lines(path: Path) -> list[str]:
    """The error lines of a file that must be refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value.lines


def test_what_is_included_lies_below_what_the_file_says(tmp_path: Path) -> None:
    write(tmp_path / "tones.yaml", TONES + "dataset: {samples: 3, source: gsm8k}\n")
    path = write(
        tmp_path / "sub/x.yaml",
        "include: [../tones.yaml]\ndataset: {samples: 5}\nvariants: {calm: {text: Hush.}, glad: {text: Ah.}}\n",
    )
    config = load_config(path)
    assert list(config.variants) == ["control", "calm", "glad"]
    assert (config.variants["calm"].text, config.variants["calm"].valence) == ("Hush.", "neutral")
    assert (config.dataset.samples, config.dataset.source) == (5, "gsm8k")


def test_an_included_file_is_as_good_as_its_text_in_place(tmp_path: Path) -> None:
    write(tmp_path / "tones.yaml", TONES)
    path = write(tmp_path / "a.yaml", "include: [tones.yaml]\nexperiment: {name: x}\n")
    written_out = write(tmp_path / "b.yaml", TONES + "experiment: {name: x}\n")
    assert load_config(path).resolved() == load_config(written_out).resolved()


def test_a_later_file_wins_and_files_may_include_others(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "experiment: {name: a, seed: 1}\n")
    write(tmp_path / "b/b.yaml", "include: [c.yaml]\nexperiment: {name: b}\n")
    write(tmp_path / "b/c.yaml", "experiment: {name: c}\nmodel: {source: m}\n")
    path = write(tmp_path / "x.yaml", "include: [a.yaml, b/b.yaml]\n")
    assert read_config_values(path) == {"experiment": {"name": "b", "seed": 1}, "model": {"source": "m"}}


def test_a_file_may_be_included_along_two_ways(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "experiment: {seed: 1}\n")
    write(tmp_path / "b.yaml", "include: [a.yaml]\n")
    path = write(tmp_path / "x.yaml", "include: [a.yaml, b.yaml]\n")
    assert read_config_values(path) == {"experiment": {"seed": 1}}


def test_includes_that_double_are_each_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in range(14):
        write(
            tmp_path / f"{level}.yaml", f"include: [{level + 1}.yaml, {level + 1}.yaml]\nexperiment: {{seed: {level}}}"
        )
    write(tmp_path / "14.yaml", "model: {source: m}\n")
    files: list[object] = []
    monkeypatch.setattr(reading, "read_yaml", lambda path: files.append(path) or read_yaml(path))  # type: ignore[func-returns-value]
    assert read_config_values(tmp_path / "0.yaml") == {"experiment": {"seed": 0}, "model": {"source": "m"}}
    assert len(files) == 15


def test_a_chain_of_includes_ends(tmp_path: Path) -> None:
    for level in range(100):
        write(tmp_path / f"{level}.yaml", f"include: [{level + 1}.yaml]")
    (line,) = error_lines(tmp_path / "0.yaml")
    assert "more than 16 one inside another" in line


def test_values_that_come_from_no_file_include_too(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "experiment: {seed: 1}\n")
    assert with_includes({"include": ["a.yaml"]}, tmp_path) == {"experiment": {"seed": 1}}
    assert with_includes({"model": {}}, tmp_path) == {"model": {}}


def test_merging_changes_neither_side() -> None:
    base, over = {"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": None}
    assert merged(base, over) == {"a": {"b": 1, "c": [2]}, "d": None}
    assert (base, over) == ({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": None})


@pytest.mark.parametrize(
    ("files", "at_fault", "word"),
    [
        ({"x.yaml": "include: [none.yaml]"}, "x.yaml", "none.yaml does not exist"),
        ({"x.yaml": "include: tones.yaml"}, "x.yaml", "list of paths"),
        ({"x.yaml": "include: [1]"}, "x.yaml", "list of paths"),
        ({"x.yaml": "include: null"}, "x.yaml", "list of paths"),
        ({"x.yaml": "include: [a.yaml]", "a.yaml": "include: {}"}, "a.yaml", "list of paths"),
        ({"x.yaml": "include: [a.yaml]", "a.yaml": "- 1"}, "a.yaml", "mapping"),
        ({"x.yaml": "include: [a.yaml]", "a.yaml": ""}, "a.yaml", "it is empty"),
        ({"x.yaml": "include: [.]"}, "x.yaml", "is no file"),
        ({"x.yaml": "include: [/dev/zero]"}, "x.yaml", "is no file"),
        ({"x.yaml": f"include: [{', '.join(['a.yaml'] * 300)}]", "a.yaml": "{}"}, "x.yaml", "more than 256 files"),
        (
            {
                "x.yaml": "include: [a.yaml, b.yaml]",
                "a.yaml": "include: [x.yaml, x.yaml]",
                "b.yaml": "include: [x.yaml]",
            },
            "x.yaml",
            "includes itself",
        ),
        ({"x.yaml": "include: [a.yaml]", "a.yaml": "a: 1\na: 2"}, "a.yaml", "twice"),
        ({"x.yaml": "include: [x.yaml]"}, "x.yaml", "includes itself"),
        ({"x.yaml": "include: [a.yaml]", "a.yaml": "include: [x.yaml]"}, "x.yaml", "includes itself"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(
    tmp_path: Path, files: dict[str, str], at_fault: str, word: str
) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    (line,) = error_lines(tmp_path / "x.yaml")
    assert line.startswith(f"{tmp_path / at_fault}: ")
    assert word in line
