"""The table of steered trajectories, out of folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoprobe.analysis.steering_table import repetition, steering_table
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import AgentState, AnswerRecord, Sample, Scores, Trajectory, Usage
from emoprobe.results.verification import verify
from emoprobe.steering.grid import ToneDirection

JOY = "joy/add-all/L10+12/d-0.5"
NAME = "gsm8k_0001"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An experiment with one question, answered without an edit, with one, and by nobody."""
    found = Layout.of("one", tmp_path)
    Sample(sample_id=NAME, index=0, question="2 + 1?", answer="3", source={}, group="sums").write(found.sample(NAME))
    write(found, "none", "Answer: 3", Scores(log_p_gold=-1.0, perplexity=2.0, kl=[0.0, 0.0], tokens=6))
    edits = [{"tokens": [5]}, {"tokens": [4]}]
    write(found, JOY, "3, 3, 3", Scores(log_p_gold=-2.5, perplexity=9.0, kl=[0.5, 1.5], tokens=6), edits)
    write(found, "random-01/ablate-prompt/L3/d1", "", Scores(error="no server answered"), error="no server answered")
    return found


def write(
    layout: Layout,
    condition: str,
    answer: str,
    scores: Scores,
    edits: list[dict[str, Any]] | None = None,
    error: str | None = None,
) -> None:
    folder = layout.steered(condition, "control", NAME)
    known: dict[str, Any] = {"error": error}
    if error is None:
        known = {"prompt_token_ids": [1], "completion_token_ids": [7, 8, 7, 8, 7, 8], "finish_reason": "stop"}
        known |= {"usage": Usage(completion_tokens=6), "response": {"ndif": {"steering": edits}} if edits else {}}
    asked = [{"role": "user", "content": "2 + 1?"}]
    request: dict[str, Any] = {"messages": asked}
    if condition != "none":
        direction, edit, layers, dose = condition.split("/")
        operation, phase = edit.split("-")
        entry: dict[str, Any] = {"file": f"directions/{direction}.safetensors", "operation": operation, "phase": phase}
        entry |= {"layers": [int(layer) for layer in layers[1:].split("+")], "dose": float(dose[1:])}
        request["ndif"] = {"steering": [entry]}
    state = AgentState(request=request, **known)
    outcome = AnswerRecord(sample_id=NAME, variant="control")
    Trajectory([*asked, {"role": "assistant", "content": answer}], state, outcome).write(folder)
    scores.write(folder / "scores.json")


def test_every_column_follows_from_the_folder(layout: Layout) -> None:
    conditions = ["none", JOY, "random-01/ablate-prompt/L3/d1"]
    directions = {"joy": ToneDirection("joy", "tone", "joy"), "random-01": ToneDirection("random-01", "random")}
    table = steering_table(layout, [(condition, "control", NAME) for condition in conditions], directions)
    plain, joy, failed = table.replace({np.nan: None}).to_dict("records")
    assert plain["direction"] == plain["family"] == "none"
    assert (plain["dose"], plain["edited_tokens"], plain["kl"], plain["correct"]) == (0.0, 0, 0.0, True)
    assert (joy["direction"], joy["family"], joy["tone"]) == ("joy", "tone", "joy")
    assert (joy["operation"], joy["phase"], joy["layers"], joy["dose"]) == ("add", "all", "10+12", -0.5)
    assert (joy["correct"], joy["correct_lenient"], joy["compliant"]) == (False, True, False)
    assert (joy["log_p_gold"], joy["perplexity"], joy["kl"], joy["edited_tokens"]) == (-2.5, 9.0, 1.0, 9)
    assert joy["repetition"] == 0.5
    assert (joy["sample_id"], joy["draw"], joy["group"], joy["question"]) == (NAME, 1, "sums", "2 + 1?")
    assert (failed["operation"], failed["error"]) == ("ablate", "no server answered")
    assert failed["correct"] is failed["log_p_gold"] is failed["edited_tokens"] is None


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0.0),
        ([1, 1], 0.0),
        ([1, 1, 1, 1], 0.5),  # two trigrams, one of them new
        (list(range(30)), 0.0),
        ([5] * 23, 19 / 20),  # twenty 4-grams, one of them new
    ],
)
def test_repetition_is_the_share_of_old_n_grams(tokens: list[int], share: float) -> None:
    assert repetition(tokens) == pytest.approx(share)


def test_verify_looks_at_steered_trajectories_and_their_scores(layout: Layout) -> None:
    steered = [(condition, "control", NAME) for condition in ("none", JOY, "random-01/ablate-prompt/L3/d1")]
    found = verify(layout, [], [], steered)
    assert (found.checked, found.problems) == (3, [])
    folder = layout.steered(JOY, "control", NAME)
    Scores(log_p_gold=-1.0, tokens=5).write(folder / "scores.json")
    (layout.steered("none", "control", NAME) / "scores.json").unlink()
    problems = verify(layout, [], [], steered).problems
    assert len(problems) == 2
    assert "none/control" in problems[0]
    assert "made from another answer" in problems[1]


def test_a_damaged_score_is_named(layout: Layout) -> None:
    path = layout.steered(JOY, "control", NAME) / "scores.json"
    path.write_text("{")
    with pytest.raises(DamagedError, match=r"scores\.json"):
        steering_table(layout, [(JOY, "control", NAME)], {"joy": ToneDirection("joy", "tone", "joy")})
