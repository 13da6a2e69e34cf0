"""Chromium through Playwright, and what a page says on its console."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser; fail where there is none."""
    if CHROMIUM is None:
        pytest.fail("this test needs a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, page: Path, address: str = "", **options: Any) -> Iterator[Page]:
    """Open a page from the file system; fail where it prints an error or asks for anything but files beside it."""
    context = browser.new_context(**options)
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith("file:") else said.append(f"asked for {asked.url}"))
    tab.goto(f"{page.as_uri()}{address}")
    yield tab
    context.close()
    unexpected = [line for line in said if not line.startswith("asked for data:")]
    assert not unexpected, unexpected
