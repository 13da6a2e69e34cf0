"""The report in a browser: its links open the conversations behind a number, and axe-core finds nothing serious."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import pandas as pd
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, expect

from emoprobe.analysis.preregistration import analysis_plan
from emoprobe.report.figures import figures_of_tables
from emoprobe.report.figures.view import ExperimentView
from emoprobe.report.page import BROAD
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import Trajectory
from emoprobe.stages.behaviour import analyze_behaviour
from emoprobe.stages.figures import draw
from emoprobe.stages.folder import analyze_folder
from emoprobe.stages.report import write_report
from emoprobe.stages.steering import analyze_steering
from tests.emoprobe.explorer import scenes
from tests.emoprobe.explorer.browser import chromium, opened

RULES = ("tabulate_trajectories", "analyze_behaviour", "tabulate_steering", "analyze_steering")
VIEWS = {
    "grid": "#",
    "filtered": "#?variant=joy&flip=any&against=gloom",
    "nothing": "#?q=nowhere",
    "side by side": "#filler+joy+gloom/q_0002",
    "many draws": "#joy/q_0001-d2",
    "inside": "#joy/q_0002?inside&token=feature-7",
    "steering": "#steering/joy/add-all/L1/d2/filler/q_0006",
    "unknown": "#joy/q_0099",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A scene with its report."""
    layout, config = scenes.write(tmp_path_factory.mktemp("report") / "scene"), scenes.config()
    atomic.write_json(layout.plan, analysis_plan(config).values())
    analyze_behaviour(config, layout)
    analyze_steering(config, layout)
    draw(config, layout, rules=RULES)
    write_report(config, layout, RULES)
    return layout


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, finished: Layout) -> Iterator[Page]:
    with opened(browser, finished.report_html, viewport={"width": 1200, "height": 900}) as tab:
        yield tab


@dataclass(frozen=True)
class Recorded(ExperimentView):
    """A view that records which tables a figure reads."""

    read: set[str] = field(default_factory=set)

    def table(self, name: str) -> pd.DataFrame:
        self.read.add(name)
        return super().table(name)


def test_a_figure_reads_the_tables_that_it_declares(finished: Layout) -> None:
    figures = [figure for figure in figures_of_tables(RULES) if finished.figure(figure.name).exists()]
    assert {"accuracy", "outcomes", "steering_dose_response"} <= {figure.name for figure in figures}
    for figure in figures:
        view = Recorded(finished, scenes.config())
        figure.draw(view)
        assert view.read == set(figure.tables), figure.name


def shown(page: Page) -> str:
    """What the grid says of its selection."""
    expect(page.locator("a.cell").first).to_be_visible()
    return page.locator("output").inner_text()


def test_a_row_of_a_figure_opens_the_conversations_behind_it(page: Page, finished: Layout) -> None:
    row = page.locator("#accuracy svg a", has_text="conversations of joy")
    box = row.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    accuracy = read_table(finished.root, "accuracy").set_index("variant")["n"]
    assert shown(page) == f"6 of 6 questions, {int(accuracy['joy'])} conversations"
    page.go_back()
    page.locator("#paired_differences svg a", has_text="conversations behind gloom − control").focus()
    page.keyboard.press("Enter")
    tests = read_table(finished.root, "paired_tests")
    changed = tests[(tests["variant"] == "gloom") & (tests["reference"] == "control") & (tests["measure"] == "correct")]
    count = int((changed["gained"] + changed["lost"]).iloc[0])
    assert count > 0
    assert shown(page) == f"{count} of 6 questions, {count} conversations"
    assert page.locator("a.cell.lost:not(.dim), a.cell.gained:not(.dim)").count() == count


def test_every_link_leads_to_conversations_that_are_there(page: Page, finished: Layout) -> None:
    hrefs = page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    links = sorted({href for href in hrefs if href.startswith("explorer/index.html#")})
    for start in ("#?variant=joy", "#steering/joy/add-all/L1/d2/filler", "#?variant=gloom&flip=any&against=control"):
        assert f"explorer/index.html{start}" in links
    assert any(unquote(unquote(link)).startswith(f"explorer/index.html#?variant={scenes.ODD}") for link in links)
    page.goto(finished.explorer.as_uri())
    for link in links:
        page.evaluate("address => { location.hash = address; }", link.partition("#")[2])
        expect(page.locator("a.cell, .column h3, .grid .nothing").first).to_be_visible()
        # No question may differ, but every name is known.
        assert "no conversation" not in page.locator("main").inner_text()
        if "#?" in link and "flip" not in link:
            assert not shown(page).startswith("0 ")


def test_every_linked_file_is_there(finished: Layout) -> None:
    """The plan among them, beside the line that names it."""
    text = finished.report_html.read_text()
    files = {href for href in re.findall(r'href="([^"#:,]+)"', text) if not href.startswith("explorer/")}
    assert {path for path in files if not (finished.root / path).exists()} == set()
    assert re.search(r"<dt>Plan</dt><dd>sha256 [0-9a-f]{12} \(<a href=\"analysis_plan.json\"", text)


def test_broad_figures_have_the_width_of_the_page(page: Page) -> None:
    svg = page.locator("figure.broad svg, .figures figure:not(.broad) svg")
    widths = svg.evaluate_all("all => all.map(svg => [parseFloat(svg.getAttribute('width')), !!svg.closest('.broad')])")
    assert all(broad == (width > BROAD) for width, broad in widths)
    assert widths
    page.set_viewport_size({"width": 1900, "height": 900})
    box = page.locator("main").bounding_box()
    assert box is not None
    assert box["width"] > 1500


def test_a_figure_alone_has_the_same_links(browser: Browser, finished: Layout) -> None:
    with opened(browser, finished.figure("accuracy")) as tab:
        first = tab.locator("a").first
        assert first.locator("title").text_content() == "conversations of control"
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        assert re.match(r"6 of 6 questions, 6 conversations", shown(tab))


def test_a_figure_with_nothing_to_see_is_left_out(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    pairs = [(variant, str(number)) for variant in ("control", "filler", "odd") for number in range(2)]
    for pair in pairs:
        Trajectory([{"role": "user", "content": "?"}, {"role": "assistant", "content": "no number"}]).write(
            layout.pair(*pair)
        )
    matplotlib.rcParams["font.size"] = 13.0
    analyze_folder(tmp_path)
    assert matplotlib.rcParams["font.size"] == 13.0  # the style of figures is of no concern to others
    matplotlib.rcParams["font.size"] = matplotlib.rcParamsDefault["font.size"]
    assert layout.figure("accuracy").exists()
    assert "<figure" not in layout.report_html.read_text()


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical, each with the first element.

    It must not fetch style sheets, which a page from a file system cannot.
    """
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    return [
        f"{entry['id']}: {entry['nodes'][0]['html'][:200]} {entry['nodes'][0]['failureSummary']}"
        for entry in found
        if entry["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_in_the_report(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_in_the_explorer(page: Page, finished: Layout, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(finished.explorer.as_uri())
    found = {}
    for name, address in VIEWS.items():
        page.evaluate("address => { location.hash = address; }", address)
        expect(page.locator("a.cell, .column .facts, .nothing").first).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        found[name] = serious(page)
    page.keyboard.press("?")
    found["help"] = serious(page)
    assert {name: entries for name, entries in found.items() if entries} == {}
