"""Drawing samples: one process draws many, its answers come back once each, and the command of a request does the same."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from emoprobe.results import atomic
from emoprobe.workflow.drawing import SampleProcess, SampleRequest
from tests.workspace import ROOT

SCRIPT = (sys.executable, str(ROOT / "scripts"), "prepare_sample")
SECONDS = 120.0


class Answers:
    """Collect the answers to numbered requests."""

    def __init__(self, count: int) -> None:
        self._missing, self._complete = count, threading.Event()
        self.reasons: list[tuple[int, str]] = []

    def __call__(self, number: int, reason: str) -> None:
        self.reasons.append((number, reason))
        self._missing -= 1
        if not self._missing:
            self._complete.set()

    def wait(self) -> dict[int, str]:
        assert self._complete.wait(SECONDS)
        assert len(dict(self.reasons)) == len(self.reasons)
        return dict(self.reasons)


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SampleRequest]:
    """Requests for four questions, of which the last has no text; the path of the data is relative."""
    monkeypatch.chdir(tmp_path)
    questions = [*(f"{number} + {number}?" for number in range(3)), " "]
    Path("data.jsonl").write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in questions))
    config = parse_config({"experiment": {"name": "one"}, "dataset": {"source": "data.jsonl", "samples": 4}})
    atomic.write_json(Path("plan é/one.json"), config.resolved())
    return [SampleRequest(SCRIPT, "plan é/one.json", "results/one", f"gsm8k_{n:04d}", (0, 0)) for n in range(1, 5)]


def test_one_process_draws_what_the_commands_draw(requests: list[SampleRequest]) -> None:
    answers = Answers(4)
    process = SampleProcess(SCRIPT, answers)
    process.ask(list(enumerate(requests[:1])))
    process.ask(list(enumerate(requests))[1:])
    reasons = answers.wait()
    (failed,) = [reason for reason in reasons.values() if reason]
    assert "has no question" in failed
    process.close()
    folder = Path("results/one/samples")
    drawn = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(drawn.values())) == 3
    for path in folder.iterdir():
        path.unlink()
    for number, request in enumerate(requests):
        done = subprocess.run(["bash", "-c", str(request)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1 if reasons[number] else 0, reasons[number])
    assert {path.name: path.read_text() for path in folder.iterdir()} == drawn


def test_a_folder_that_cannot_be_written_says_what_to_do(requests: list[SampleRequest]) -> None:
    Path("results").write_text("a file")
    answers = Answers(1)
    process = SampleProcess(SCRIPT, answers)
    process.ask([(0, requests[0])])
    assert "What to do: " in answers.wait()[0]
    process.close()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ((sys.executable, "-c", "import sys; sys.exit('broken')"), "ended with status 1:\nbroken"),
        ((sys.executable, "-c", "import sys; print('nonsense', flush=True); sys.stdin.read()"), "ended with status -9"),
        (("/no/such/python",), "cannot be started"),
    ],
)
def test_a_process_that_fails_fails_every_request(
    requests: list[SampleRequest], script: tuple[str, ...], reason: str
) -> None:
    answers = Answers(4)
    SampleProcess(script, answers).ask(list(enumerate(requests)))
    assert all(reason in each for each in answers.wait().values())


def test_the_process_ends_with_the_workflow_and_a_closed_one_answers_no_more(requests: list[SampleRequest]) -> None:
    child = "import sys; print('[0, \"\"]', flush=True); sys.stdin.read()"
    answers = Answers(1)
    process = SampleProcess((sys.executable, "-c", child), answers)
    process.ask(list(enumerate(requests)))
    answers.wait()
    running = process._process
    assert running is not None
    process.close()
    assert running.wait(SECONDS) == -9
    assert len(answers.reasons) == 1
    # Whoever dies without closing it leaves an input that ends.
    served = subprocess.Popen([*SCRIPT, "--serve"], stdin=subprocess.PIPE)
    served.communicate(timeout=SECONDS)
    assert served.returncode == 0
