"""How the workflow's process is set up."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from emoprobe.config.files import study_of
from emoprobe.workflow import process


def test_a_handler_runs_beside_the_code_that_it_interrupts() -> None:
    lock, done = threading.Lock(), threading.Event()

    def handler(number: int) -> None:
        with lock:
            assert number == 15
            done.set()

    wrapped = process.in_thread(handler)
    assert process.in_thread(wrapped) is wrapped
    with lock:  # a handler that ran here would wait for ever
        wrapped(15)
    assert done.wait(60)


def test_the_plan_is_named_by_its_content(tmp_path: Path) -> None:
    first = study_of({"experiment": {"name": "a"}})
    second = study_of({"experiment": {"name": "a"}, "workers": {"count": 2}})
    folder = process.plan_folder(first, tmp_path)
    assert folder != process.plan_folder(second, tmp_path)
    process.write_plan(first, folder)
    process.write_plan(first, folder)
    assert json.loads((folder / "a.json").read_text()) == first.configs["a"].resolved()
    assert [path.name for path in folder.iterdir()] == ["a.json"]
