"""The page to read, in a browser, and the live view."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from playwright.sync_api import expect

from emoprobe import Results
from emoprobe.analysis.probes.all_probes import run_probes
from emoprobe.report.figures import FIGURES
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import ExperimentView
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Verdict
from emoprobe.results.tables import frame
from tests.conftest import PATIENCE
from tests.emoprobe.analysis import synthetic
from tests.emoprobe.explorer.browser import chromium, opened
from tests.workspace import ROOT, Workspace


class Outside(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            fetched = tag != "a" and name in ("src", "href", "xlink:href")
            if fetched and value and not value.startswith(("#", "data:")):
                self.found.append(f"{tag} {name}={value}")


def test_the_page_needs_nothing_else_and_opens_without_errors(finished: Workspace) -> None:
    page = finished.layout.report_html
    text = page.read_text()
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    for word in ("What this shows", "paired_tests", "accuracy", "control", "frustration"):
        assert word in text
    assert text.count("<svg role") == 4
    assert 'class="comparisons"' in text
    links = re.findall(r'<a href="([^"#]+)"', text)
    assert "explorer/index.html" in links
    assert [link for link in links if not (page.parent / link).exists()] == []
    with chromium() as browser, opened(browser, page) as tab:
        expect(tab.locator("#sentences")).to_have_text("What this shows, and what it does not")
    shown = json.loads(finished.layout.report.read_text())["statements"]
    assert len(shown) >= 2


def test_the_view_prints_one_frame(after: Callable[..., Workspace]) -> None:
    finished = after()
    (finished.layout.pair("calm", "gsm8k_0001") / "trajectory.jsonl").unlink()
    log = finished.layout.log("generate", "calm", "gsm8k_0001")
    log.write_text("calm/gsm8k_0001: all 3 attempts failed:\n  1. x\n")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.watch", "--config", str(finished.write_config()), "--once"],
        cwd=finished.folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "3/4" in done.stdout
    assert "4/4" in done.stdout
    assert "no pool answers" in done.stdout
    assert "generate calm/gsm8k_0001: calm/gsm8k_0001: all 3 attempts failed" in done.stdout


@dataclass(frozen=True)
class InMemory(ExperimentView):
    """An experiment whose tables are not on the disk."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        return self.frames[name]


@pytest.mark.parametrize("count", [2, 7, 12])
def test_figures_are_legible_pictures(count: int, tmp_path: Path) -> None:
    settings = synthetic.config(count)
    table = synthetic.table(settings, 20, 0)
    found = run_probes(table, synthetic.source(table, 6, 16, 0), settings)
    view = InMemory(
        Layout(tmp_path),
        settings,
        {
            "probes": frame(TABLES["probes"], found.probes),
            "probe_tests": frame(TABLES["probe_tests"], found.tests),
            "probe_transfer": frame(TABLES["probe_transfer"], found.transfer),
            "direction_cosines": frame(TABLES["direction_cosines"], found.directions.cosines),
            "variant_plane": frame(TABLES["variant_plane"], found.directions.plane),
            "trajectories": table.assign(completion_tokens=range(len(table))),
        },
    )
    figures = {
        name: FIGURES[name].draw(view)
        for name in ("probe_auroc", "probe_transfer", "direction_cosines", "variant_plane", "lengths")
    }
    for name, figure in figures.items():
        width, height = figure.get_size_inches()
        assert 6 <= width <= 12
        assert 1 <= height <= 14
        save_figure(figure, tmp_path / f"{name}.svg")
        first = (tmp_path / f"{name}.svg").read_bytes()
        assert ElementTree.fromstring(first).tag.endswith("svg")
        assert b"<path" in first


def test_a_finished_experiment_is_one_object(finished: Workspace) -> None:
    results = Results(finished.layout.root)
    assert (
        repr(results)
        == f"Results({str(finished.layout.root)!r}: {len(results.tables)} tables, {len(dir(results.plot))} figures)"
    )
    table = results.trajectories
    assert table["messages"].iloc[0][-1] == {"role": "assistant", "content": table["completion"].iloc[0]}
    assert set(results.statements["verdict"]) <= set(Verdict)
    assert results.tables.accuracy.equals(results.tables["accuracy"])
    assert {"accuracy", "paired_tests"} <= set(dir(results.tables))
    assert results.config.experiment.name == finished.layout.root.name
    same = results.compare(results)
    assert len(same) == len(results.tables.paired_tests)
    assert same["difference_left"].equals(same["difference_right"])
    assert {"accuracy", "paired_differences"} <= set(dir(results.plot))
    figure = results.plot.accuracy()
    assert "control" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "interval" in (results.plot.accuracy.__doc__ or "")
    with pytest.raises(AttributeError, match=r"tables there: .*accuracy"):
        _ = results.tables.absent
    with pytest.raises(AttributeError, match=r"figures: accuracy"):
        _ = results.plot.absent
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Results(finished.folder / "absent")
