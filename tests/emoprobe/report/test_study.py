"""The sentences of a study, its figure, and the links of its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.behaviour import accuracy, outcome_means
from emoprobe.analysis.outcomes import ACCURACY, Outcome
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report.figures import study as study_figures
from emoprobe.results.layout import Layout
from emoprobe.results.record import read_json
from emoprobe.results.tables import write_table
from emoprobe.stages.study import report_study
from emoprobe.stages.study_table import tabulate_study
from tests.calibration import types
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Layout]:
    """Write tables and report of a study of experiments, each a table of trajectories and its outcomes."""

    def written(experiments: Mapping[str, tuple[pd.DataFrame, list[Outcome]]]) -> Layout:
        configs: dict[str, Config] = {}
        for name, (table, outcomes) in experiments.items():
            configs[name] = parse_config({"experiment": {"name": name}, "model": {"source": name}})
            layout = Layout.of(name, tmp_path)
            write_table(layout, "paired_tests", paired_tests(table, MARGIN, outcomes=outcomes))
            write_table(layout, "accuracy", accuracy(table))
            write_table(layout, "outcomes", outcome_means(table, outcomes))
        layout = Layout.of("study", tmp_path)
        tabulate_study(configs, tmp_path, layout)
        report_study(layout)
        return layout

    return written


def typed(world: types.World, seed: int) -> tuple[pd.DataFrame, list[Outcome]]:
    """An experiment with one outcome, which is no accuracy; no answer is graded."""
    return types.simulate(world, np.random.default_rng(seed)), [types.outcome_of(world)]


def test_every_sentence_is_about_something_else(study: Callable[..., Layout]) -> None:
    tables = [simulate(Scene(1319, (0.2, 0.5), 0.5), np.random.default_rng(seed)) for seed in range(2)]
    tables[0].loc[:3, "failure"] = "no server answered"
    tables[0].loc[:3, ["correct", "lenient"]] = pd.NA
    written = study({name: (table, [ACCURACY]) for name, table in zip(("first", "second"), tables, strict=True)})
    report = read_json(written.report)
    assert [entry["trajectories"] for entry in report["experiments"]] == [len(table) for table in tables]
    said = report["statements"]
    about = [one["about"] for one in said]
    assert {"accuracy:first/tone0-filler", "accuracy:second/tone0-filler"} <= set(about)
    assert len(set(about)) == len(about)
    link = "../first/explorer/index.html#?variant=tone0&amp;flip=any&amp;against=filler"
    # Of the figure, a sentence, and the rows of the table.
    assert written.report_html.read_text().count(f'href="{link}"') >= 3
    assert f'href="../{link}"' in written.figure("study_forest").read_text()
    assert all(one["text"].startswith(("first: ", "second: ")) for one in said if one["verdict"] != "note")


def test_an_equivalence_names_its_margin(study: Callable[..., Layout]) -> None:
    table = simulate(Scene(1319, (0.5,), 0.5), np.random.default_rng(0))
    said = read_json(study({"first": (table, [ACCURACY])}).report)["statements"]
    same = [one["text"] for one in said if one["verdict"].startswith("equivalent")]
    assert same
    assert all(" in strict accuracy within 10 points either way (" in text for text in same)


def test_a_study_compares_the_outcomes_that_its_experiments_share(study: Callable[..., Layout]) -> None:
    number, category = types.World("number", 192, shift=0.9), types.World("category", 192, shift=3.0)
    experiments = {"first": typed(number, 1), "second": typed(number, 2)}
    written = study(experiments)
    report = read_json(written.report)
    assert report["trajectories"] == sum(len(table) for table, _ in experiments.values()) > 0
    assert {entry["accuracy"] for entry in report["experiments"]} == {"–"}
    first, *_, rest = report["statements"]
    assert (first["about"], first["verdict"]) == ("outcome_x:first/tone0-filler", "different")
    assert first["text"].startswith("first: tone0 differs from filler in mean x (+")
    assert "points" not in first["text"]
    assert rest["text"].startswith("Of 8 planned and primary comparisons in mean x, 6 are undecided")
    figure = written.figure("study_forest").read_text()
    assert "difference of mean x" in figure
    shares = read_json(study({"first": typed(category, 1), "second": typed(category, 2)}).report)["statements"]
    assert len({one["about"] for one in shares}) == len(shares)
    assert "first: tone0 differs from filler in the share of “a” in x (+" in shares[0]["text"]


def test_a_forest_that_is_cut_says_so(study: Callable[..., Layout], monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = {name: typed(types.World("number", 96), seed) for seed, name in enumerate(("first", "second"))}
    assert "comparisons;" not in study(experiments).figure("study_forest").read_text()
    monkeypatch.setattr(study_figures, "MOST_ROWS", 3)
    assert "the first 3 of 8 comparisons;" in study(experiments).figure("study_forest").read_text()


def test_outcomes_of_one_experiment_alone_are_not_compared(study: Callable[..., Layout]) -> None:
    graded = simulate(Scene(96, (0.2, 0.5), 0.5), np.random.default_rng(0)), [ACCURACY]
    written = study({"first": graded, "second": typed(types.World("number", 96), 1)})
    report = read_json(written.report)
    assert [one["text"] for one in report["statements"]] == [
        "No planned or primary comparison is of an outcome that the experiments share."
    ]
    assert [entry["accuracy"] == "–" for entry in report["experiments"]] == [False, True]


def test_a_variant_has_the_valence_of_its_experiment(study: Callable[..., Layout]) -> None:
    table = simulate(Scene(96, (0.2, 0.5), 0.5), np.random.default_rng(0))
    other = table.assign(valence=table["valence"].map({"negative": "positive", "positive": "negative"}))
    written = study({"first": (table, [ACCURACY]), "second": (other, [ACCURACY])})
    page = written.report_html.read_text()
    sides = {name: table.loc[table["valence"] == name, "variant"].unique() for name in ("negative", "positive")}
    assert all(map(len, sides.values()))

    def planned(experiment: str, *order: str) -> str:
        names = "%2B".join(name for side in order for name in sides[side])
        return f'href="../{experiment}/explorer/index.html#?variant={names}"'

    # The planned contrast is of all negative variants against all positive ones, which are others in the second.
    assert planned("first", "negative", "positive") in page
    assert planned("second", "positive", "negative") in page
    assert planned("second", "negative", "positive") not in page
