"""The explorer at full size: seconds to make it, its size, and how fast its page answers in Chromium."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, write_table
from emoprobe.stages.explorer import write_explorer
from tests.benchmarks.measure import report
from tests.emoprobe.explorer.browser import chromium, opened

QUESTIONS, VARIANTS, WORDS = 1319, 7, 230  # 230 words are about 300 tokens
VOCABULARY = 8000


def run(arguments: list[str]) -> None:
    """Seven variants of 1,319 questions with answers of about 300 tokens: 9,233 conversations."""
    parser = argparse.ArgumentParser(prog="explorer")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="seven times as many conversations")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        layout, config = Layout(Path(folder)), write(Path(folder), options.questions)
        wall, cpu = time.perf_counter(), time.process_time()
        write_explorer(config, layout)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        files = [path for path in layout.explorer.parent.rglob("*") if path.is_file()]
        report(
            "explorer",
            conversations=options.questions * VARIANTS,
            seconds=wall,
            cpu_seconds=cpu,
            megabytes=sum(path.stat().st_size for path in files) / 1e6,
            files=len(files),
            index_kilobytes=(layout.explorer.parent / "data/index.js").stat().st_size / 1e3,
            **_in_a_browser(layout, options.questions),
        )


def _in_a_browser(layout: Layout, questions: int) -> dict[str, float]:
    """Milliseconds of the first view, of switches (the median and the worst of twenty), and of searches.

    Beside each, the milliseconds of the page's main thread: what it takes where nothing else uses the machine.
    """
    found: dict[str, float] = {}
    with chromium() as browser, opened(browser, layout.explorer) as page:
        page.wait_for_selector("a.cell")
        found["first_paint"] = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def timed(script: str, argument: Any = None) -> tuple[float, float]:
            before = _thread_time(session)
            wall = page.evaluate(script, argument)
            return wall, 1000 * (_thread_time(session) - before)

        before = _thread_time(session)
        page.reload()
        page.wait_for_selector("a.cell")
        found["reload_thread"] = 1000 * (_thread_time(session) - before)
        chosen = random.Random(1).sample(range(1, questions + 1), min(20, questions))
        # The first time from the disk, the second time from memory.
        for name in ("switch", "switch_again"):
            times = [timed(SWITCH, [f"#v1+v2+v3+v4/q_{number:04d}", f"q_{number:04d}"]) for number in chosen]
            for part, suffix in enumerate(("", "_thread")):
                ordered = sorted(entry[part] for entry in times)
                found[f"{name}{suffix}"], found[f"{name}_worst{suffix}"] = ordered[len(ordered) // 2], ordered[-1]
        found["back_to_the_grid"], found["back_to_the_grid_thread"] = timed(GRID)
        for name, query in (("search", "w12 w7 answer"), ("search_again", "w12 w73"), ("search_letter", "w")):
            found[name], found[f"{name}_thread"] = timed(SEARCH, query)
    return {f"{name}_ms": value for name, value in found.items()}


def _thread_time(session: CDPSession) -> float:
    """Seconds of CPU that tasks of the page's main thread have taken."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


# Each returns the milliseconds until what was asked for has been painted.
PAINTED = "await new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
SWITCH = f"""async ([address, name]) => {{
    const begin = performance.now();
    location.hash = address;
    while (!(document.querySelector("h2")?.textContent === name && document.querySelectorAll(".column .facts").length === 4))
        await new Promise(done => setTimeout(done, 1));
    {PAINTED}
    return performance.now() - begin;
}}"""
GRID = f"""async () => {{
    const begin = performance.now();
    location.hash = "#";
    while (!document.querySelector("a.cell")) await new Promise(done => setTimeout(done, 1));
    {PAINTED}
    return performance.now() - begin;
}}"""
SEARCH = f"""async query => {{
    const field = document.getElementById("search"), output = document.querySelector("output");
    const before = output.textContent, begin = performance.now();
    field.value = query;
    field.dispatchEvent(new Event("input", {{bubbles: true}}));
    while (output.textContent === before || output.textContent.startsWith("searching"))
        await new Promise(done => setTimeout(done, 1));
    {PAINTED}
    return performance.now() - begin;
}}"""


def write(root: Path, questions: int) -> Config:
    """Write conversations and their table, without the seconds that grading them takes."""
    generator = random.Random(0)
    words = [f"w{number}" for number in range(VOCABULARY)]
    weights = [1 / (number + 3) for number in range(VOCABULARY)]
    names = ["control", "filler", *(f"v{number}" for number in range(1, VARIANTS - 1))]
    rows: list[dict[str, Any]] = []
    for number in range(1, questions + 1):
        sample, question = f"q_{number:04d}", " ".join(generator.choices(words, weights, k=45))
        for variant in names:
            right = generator.random() < 0.6
            answer = number if right else number + 1
            text = " ".join(generator.choices(words, weights, k=WORDS)) + f"\nAnswer: {answer}"
            folder = root / variant / sample
            folder.mkdir(parents=True)
            messages = [
                {"role": "user", "content": f"{variant} text. {question}"},
                {"role": "assistant", "content": text},
            ]
            (folder / "trajectory.jsonl").write_text("".join(f"{json.dumps(message)}\n" for message in messages))
            rows.append(
                {
                    "variant": variant, "sample_id": sample, "draw": 1, "question": question, "gold": str(number),
                    "completion": text, "extracted": str(answer), "correct": right, "lenient": right,
                    "extraction": "marker", "compliant": True, "truncated": False, "completion_tokens": 300,
                    "group": f"level={number % 5}",
                }
            )  # fmt: skip
    write_table(Layout(root), "trajectories", frame(TABLES["trajectories"], rows))
    return parse_config(
        {
            "experiment": {"name": "full"},
            "variants": {name: {} if name == "control" else {"text": f"{name}."} for name in names},
        }
    )
