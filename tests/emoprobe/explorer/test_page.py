"""The explorer in a browser, opened from the file system: each view, keys, dark mode, addresses, hostile texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from emoprobe.results.layout import Layout
from scripts.bundle_explorer import ASSETS, sources_sha256
from tests.emoprobe.explorer import scenes
from tests.emoprobe.explorer.browser import chromium, opened


@pytest.fixture(scope="module")
def page(scene: Layout) -> Iterator[Page]:
    with chromium() as browser, opened(browser, scene.explorer) as tab:
        yield tab


def go(page: Page, address: str) -> Page:
    """Follow an address as if somebody had typed it."""
    page.evaluate("address => { location.hash = address; }", address)
    return page


def questions(page: Page) -> list[str]:
    return page.locator(".line .id").all_inner_texts()


def test_the_bundle_is_made_from_these_sources() -> None:
    """`make explorer` makes it."""
    text = (ASSETS / "explorer.js").read_text()
    assert sources_sha256() in text
    assert "Jason Miller" in text
    assert "The MIT License" in text
    assert len(text.encode()) < 60_000
    for word in ("innerHTML=", "insertAdjacentHTML", "document.write", "eval("):
        assert text.count(word) == (1 if word == "innerHTML=" else 0), (
            word
        )  # one in the library, for a property that no view sets
    assert "dangerouslySetInnerHTML:" not in text


def test_the_grid(page: Page) -> None:
    go(page, "#")
    expect(page.locator("output")).to_have_text("6 of 6 questions, 32 conversations")
    assert questions(page) == [f"q_{number:04d}" for number in range(1, 7)]
    cell = page.locator('.line:has-text("q_0003") a.cell').nth(list(scenes.TEXTS).index("joy"))
    expect(cell).to_have_class(re.compile("o-w.*lost"))
    expect(cell).to_have_text("7")
    page.get_by_label("flipped").select_option("any")
    # The first question by its second draw: more draws of its reference are right.
    assert questions(page) == ["q_0001", "q_0002", "q_0003", "q_0004", "q_0005"]
    page.get_by_label("variant").select_option("joy")
    assert questions(page) == ["q_0001", "q_0003"]
    expect(page.locator("output")).to_have_text("2 of 6 questions, 3 conversations")
    assert page.evaluate("location.hash") == "#?flip=any&variant=joy"
    page.get_by_label("flipped against").select_option("gloom")
    assert questions(page) == ["q_0001", "q_0002", "q_0003", "q_0004", "q_0005"]
    expect(page.locator(".legend")).to_contain_text("lost against gloom")
    assert page.locator('.line:has-text("q_0005") a.cell').nth(2).get_attribute("href") == "#gloom+joy/q_0005"
    page.get_by_role("button", name="clear").click()
    page.get_by_label("with activations").check()
    expect(page.locator("output")).to_have_text("4 of 6 questions, 12 conversations")
    go(page, "#?inside=1&variant=joy%2Bgloom&layer=2")
    expect(page.locator("output")).to_have_text("4 of 6 questions, 8 conversations")
    page.locator('.line:has-text("q_0002") a.cell').nth(2).click()
    expect(page.locator(".column").nth(1).locator(".inside h4")).to_have_text("inside, layer 2")
    page.keyboard.press("g")
    page.get_by_role("button", name="clear").click()
    page.get_by_label("group").select_option("odd")
    page.get_by_label("order").select_option("hard")
    assert questions(page) == ["q_0003", "q_0005", "q_0001"]
    page.get_by_role("button", name="clear").click()
    page.get_by_label("outcome").select_option("n")
    assert questions(page) == ["q_0004"]
    page.get_by_role("button", name="clear").click()
    page.get_by_label("cut off").check()
    assert questions(page) == ["q_0004"]
    page.get_by_role("button", name="clear").click()
    page.get_by_label("difficulty").select_option("none")
    assert questions(page) == ["q_0006"]
    page.get_by_role("button", name="clear").click()
    # Words of an answer, of a question, and both; each may be begun only.
    for query, expected in (
        ("comes", ["q_0005"]),
        ("much 6 5", []),
        ("rains much 4", ["q_0004"]),
        ("will sa", ["q_0004"]),
    ):
        page.keyboard.press("/")
        page.keyboard.press("Control+a")
        page.keyboard.type(query)
        expect(page.locator("output")).to_have_text(re.compile(f"^{len(expected)} of"))
        assert questions(page) == expected
        page.keyboard.press("Escape")
    go(page, "#?sort=hard&level=some")
    expect(page.locator(".line")).to_have_count(5)
    assert questions(page) == ["q_0002", "q_0003", "q_0004", "q_0005", "q_0001"]
    page.get_by_role("button", name="help").click()
    expect(page.get_by_role("dialog")).to_contain_text("question before")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_side_by_side(page: Page) -> None:
    go(page, "#")  # without the filters of another test
    go(page, "#joy/q_0003")
    filler, joy = page.locator(".column").all()
    expect(joy.locator("mark.tone")).to_have_text("What a day 🎉!")
    expect(joy.locator("mark.answer")).to_have_text("7")
    expect(filler.locator("mark.answer")).to_have_text("6")
    expect(joy.locator(".reason")).to_have_text("Wrong: “7” is marked as the final answer, and the gold answer is 6.")
    assert "So it must be 6, I think" in "".join(joy.locator("mark.different").all_inner_texts())
    expect(joy.locator(".facts")).to_contain_text("vllm-0")
    expect(joy.locator(".judgements p")).to_have_text(
        ["polite: false — <b>not</b> rude ⟨U+202E⟩as joy judge-x", "kind: no value — no JSON object judge-x"]
    )
    expect(filler.locator(".judgements b")).to_have_text(["true", "no value"])
    expect(joy.locator(".thought")).not_to_have_attribute("open", "")
    page.keyboard.press("t")
    expect(joy.locator(".thought")).to_contain_text("🎉 is it 6?")
    page.keyboard.press("d")
    expect(page.locator("mark.different")).to_have_count(0)
    page.keyboard.press("d")
    expect(page.locator(".opening")).to_contain_text("1 message before")
    page.get_by_role("button", name="gloom", exact=True).click()
    expect(page.locator(".column")).to_have_count(3)
    assert page.evaluate("location.hash") == "#filler+joy+gloom/q_0003"
    page.keyboard.press("j")
    expect(page.locator("h2")).to_have_text("q_0004")
    expect(page.locator(".judgements")).to_have_count(0)
    expect(page.locator(".column").nth(2)).to_contain_text("no single answer could be read before the completion")
    page.keyboard.press("j")
    expect(page.locator(".column").nth(2)).to_contain_text("Wrong by the strict grade: “10” equals the gold answer")
    page.keyboard.press("g")
    expect(page.locator(".grid")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("h2")).to_have_text("q_0002")
    go(page, "#joy/q_0001-d2")
    expect(page.locator(".draw.chosen")).to_have_text("2")
    page.keyboard.press("r")
    assert page.evaluate("location.hash") == "#joy/q_0001"
    go(page, "#joy/q_0099")
    expect(page.locator("main")).to_contain_text("This experiment has no conversation joy/q_0099.")


def test_hostile_texts_are_shown_as_texts(page: Page) -> None:
    variant, sample = scenes.HOSTILE
    go(page, f"#{variant}/{sample}")
    column = page.locator(".column").nth(1)
    expect(column).to_contain_text("<script>window.pwned = 1</script><img src=x")
    expect(column).to_contain_text("␛[31mred␛[0m שלום ⟨U+202E⟩evil⟨U+202C⟩")
    expect(column).to_contain_text("more characters are in gloom/q_0002/trajectory.jsonl")
    assert page.locator("img, .column script").count() == 0
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    go(page, "#%3Ci%3Ea%2Bb/q_0001")
    expect(page.locator(".column h3").nth(1)).to_contain_text(scenes.ODD)
    call, result = page.locator("details.call").all()
    expect(call).to_have_text(re.compile(r"add\s*\{\"a\": 1\}"))
    expect(call.locator("pre")).to_be_hidden()
    call.locator("summary").click()
    expect(call.locator("pre")).to_be_visible()
    expect(result).to_have_text(re.compile(r"result\s*2"))


def test_inside(page: Page) -> None:
    go(page, "#joy/q_0002?inside&direction=joy&layer=2")
    panel = page.locator(".column").nth(1).locator(".inside")
    expect(panel.locator(".position")).to_have_count(len(scenes.POSITIONS))
    expect(panel.locator(".layer-line")).to_have_count(len(scenes.LAYERS))
    values = scenes.activations()
    raw = {pair: value[2, 1] @ scenes.direction("response_mean")[2] for pair, value in values.items()}
    mean = sum(raw.values()) / len(raw)
    deviation = (sum((value - mean) ** 2 for value in raw.values()) / len(raw)) ** 0.5
    standardised = (raw["joy", "q_0002"] - mean) / deviation
    shown = panel.locator(".position b").nth(1).inner_text()
    assert abs(float(shown.replace("−", "-")) - standardised) < 0.1
    page.get_by_label("tokens by").select_option("feature-7")
    expect(panel.locator(".tokens span")).to_have_count(scenes.TOKENS)
    assert "token=feature-7" in page.evaluate("location.hash")
    page.locator("input[type=range]").fill("0")
    expect(panel.locator("h4")).to_have_text("inside, layer 0")
    assert "layer=0" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    go(page, "#joy/q_0006?inside")
    expect(page.locator(".column").nth(1)).to_contain_text("Its activations were not captured")


def test_doses_side_by_side(page: Page) -> None:
    go(page, "#steering/joy/add-all/L1/d2/filler/q_0006")
    expect(page.locator(".column h3")).to_have_text(["dose -1", "unsteered", "dose 2"])
    expect(page.locator(".column h3.chosen")).to_have_text("dose 2")
    expect(page.locator(".column").nth(2).locator("mark.answer")).to_have_text("13")
    expect(page.locator(".column").nth(2).locator("mark.different").first).to_have_text(re.compile("^Oh, d2"))
    page.keyboard.press("r")
    assert page.evaluate("location.hash") == "#steering/joy/add-all/L1/d2/filler/q_0006-d2"
    expect(page.locator(".column").nth(2).locator("mark.answer")).to_have_text("14")
    expect(page.locator(".column").nth(2)).to_have_attribute(
        "aria-label", "steering/joy/add-all/L1/d2/filler/q_0006-d2"
    )
    page.keyboard.press("k")
    expect(page.locator("h2")).to_have_text("q_0005")
    expect(page.locator(".column")).to_have_count(3)


def test_dark_and_light_at_any_width(page: Page) -> None:
    for width in (400, 1200, 1900):
        page.set_viewport_size({"width": width, "height": 800})
        for address in ("#", "#joy+gloom/q_0002?inside", "#steering/joy/add-all/L1/d2/filler/q_0006"):
            go(page, address)
            backgrounds = []
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                expect(page.locator(".cell, .column h3").first).to_be_visible()
                backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, address)
            assert backgrounds[0] != backgrounds[1]
