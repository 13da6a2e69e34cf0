"""An experiment with two judges, from the dry run to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.config.files import parse_config
from emoprobe.results.tables import read_table
from emoprobe.workflow.targets import Targets
from tests.conftest import VARIANTS, StubServer
from tests.judges import judge
from tests.workspace import Workspace, jobs_in

MODELS = ("stub", "judge-x", "judge-low", "judge-first", "judge-guess")
PRICES = {name: {"input": 1.0, "output": 10.0} for name in MODELS}
REMADE = {
    "tabulate_trajectories", "analyze_behaviour", "list_answers_to_label", "draw_figures", "report_experiment",
    "build_explorer", "verify",
}  # fmt: skip


def judged(server: StubServer, judges: list[dict[str, Any]], samples: int) -> dict[str, Any]:
    """The config of an experiment whose model and judges are behind one API."""
    return {
        "experiment": {"name": "tiny"},
        "model": {"source": "stub"},
        "dataset": {"samples": samples},
        "variants": VARIANTS,
        "graders": [*judges, "number"],
        "generation": {"backend": "api", "max_tokens": 40},
        "capture": {"enabled": False},
        "workers": {"endpoints": [server.url], "prices": PRICES, "max_cost": 10.0},
    }


def test_two_judges_from_dry_run_to_report(stub: Callable[..., StubServer], tmp_path: Path) -> None:
    server = stub()
    judges = [judge(label=label, model=model, endpoints=[server.url]) for label, model in
              (("polite", "judge-x"), ("polite_low", "judge-low"))]  # fmt: skip
    config = judged(server, judges, 8)
    run = Workspace(tmp_path, config)
    planned = run.run("-n")
    assert "48 judgements" in planned
    assert "cost of judgements: about" in planned
    assert "one judge alone" not in planned
    run.run()
    layout = run.layout
    asked = [request for request in server.requests() if request["model"].startswith("judge")]
    assert len(asked) == 48
    texts = ["You keep getting this wrong.", "It is a quiet day.", "All is still."]
    assert all(text in json.dumps(VARIANTS) for text in texts)
    assert not any(text in json.dumps(asked) for text in texts)
    # The variants are asked in no order of their own: not one after the other, nor in turns.
    names = list(VARIANTS)
    planned_order = Targets(parse_config(config), layout).judged
    order = [variant for label, variant, _ in planned_order if label == "polite"]
    assert sorted(order) == sorted(names * 8)
    assert order not in ([name for name in names for _ in range(8)], names * 8)

    table = read_table(layout.root, "trajectories")
    digits = table["completion"].str[-1]
    assert (table["outcome_polite"] == digits.isin(list("02468"))).all()
    assert (table["outcome_polite_low"] == digits.isin(list("0123"))).all()
    known = read_table(layout.root, "judges").set_index("judge")
    assert known["n"].tolist() == known["units"].tolist() == [24, 24]
    first, second = (table[f"outcome_{label}"].astype(float) for label in known.index)
    # Two judges, nominal, nothing missing: 1 − (n − 1) disagreements / pairs of unlike values (Krippendorff 2004).
    ones = float(first.sum() + second.sum())
    expected = 1 - (2 * 24 - 1) * float((first != second).sum()) / (ones * (48 - ones))
    assert known["alpha"].tolist() == pytest.approx([expected] * 2)

    report = run.json("report.json")
    said = [one for one in report["statements"] if one["about"].startswith("outcome_polite")]
    assert len(said) == 4
    assert {one["verdict"] for one in said} == {"note"}
    assert all(
        "as judged by judge-" in one["text"] and "no human labels correct the judge" in one["text"] for one in said
    )
    note = next(one["text"] for one in report["statements"] if one["about"] == "data:judges")
    assert f"Krippendorff's α = {expected:.2f} on 24 answers" in note
    weights = next(one["text"] for one in report["statements"] if one["about"] == "data:weights")
    assert "judge-x" not in weights
    assert "as judged by judge-x (polite)" in (layout.root / "report.html").read_text()
    assert run.json("verified.json")["problems"] == []
    assert run.planned() == {}

    # Names of what is judged, endpoints and prices ask nothing; a lost judgement comes back alone.
    path = layout.judgement("polite", "calm", "gsm8k_0003")
    path.unlink()
    assert run.planned() == {"judge": 1, **dict.fromkeys(REMADE, 1)}
    count = len(server.requests())
    run.run("results/tiny/judgements/polite/calm/gsm8k_0003.json")
    assert len(server.requests()) == count + 1
    config["graders"] = [*({**one, "trait": "manners", "endpoints": [server.url, "http://127.0.0.1:9"]} for one in judges), "number"]  # fmt: skip
    assert not run.planned().keys() & {"judge", "generate"}
    config["graders"] = [{**judges[0], "rubric": "Is the answer kind?"}, "number"]
    alone = run.run("-n")
    assert "graders.polite: one judge alone" in alone
    assert jobs_in(alone)["judge"] == 24
    assert "generate" not in jobs_in(alone)
    missing = run.run("-n", "results/tiny/judgements/rude/calm/gsm8k_0003.json", ok=False)
    assert "has no judgement rude/calm/gsm8k_0003" in missing


def test_judges_that_compare_and_guess_from_dry_run_to_report(stub: Callable[..., StubServer], tmp_path: Path) -> None:
    server = stub()
    judges = [
        judge(label=label, model=model, endpoints=[server.url], compare_with="control", rubric="Which is more polite?")
        for label, model in (("better", "judge-x"), ("better_first", "judge-first"))
    ]
    judges.append(judge(model="judge-guess", rubric="guess", endpoints=[server.url]))
    config = judged(server, judges, 12)
    run = Workspace(tmp_path, config)
    others = [name for name in VARIANTS if name != "control"]
    pairs, guesses = len(others) * 12, len(VARIANTS) * 12
    planned = run.run("-n")
    assert f"{2 * pairs + guesses} judgements" in planned
    assert f"at most for {4 * pairs + guesses} requests" in planned
    assert "one judge alone" not in planned
    run.run()
    layout = run.layout
    asked = [request for request in server.requests() if request["model"].startswith("judge")]
    assert len(asked) == 4 * pairs + guesses
    assert not any(text in json.dumps(asked) for text in ("You keep getting this wrong.", "It is a quiet day."))

    table = read_table(layout.root, "trajectories")
    rows = {(row["variant"], row["sample_id"]): row for row in table.to_dict("records")}
    for (variant, sample), row in rows.items():
        if variant == "control":
            assert pd.isna(row["outcome_better"])
            continue
        ours, theirs = int(row["completion"][-1]), int(rows["control", sample]["completion"][-1])
        assert row["outcome_better"] == (0.5 if ours == theirs else float(ours > theirs))
        assert row["orders_better"] == "same"
        assert (row["outcome_better_first"], row["orders_better_first"]) == (0.5, "first")
    known = read_table(layout.root, "judges").set_index("judge")
    guess = known.loc["judge_guess"]
    right = table["outcome_judge_guess"] == table["variant"]
    assert (guess["guesses"], guess["guessed"]) == (guesses, pytest.approx(right.mean()))
    assert guess["guess_chance"] == pytest.approx(1 / len(VARIANTS))
    known = known.drop(index="judge_guess")
    assert known["judgements"].tolist() == known["n"].tolist() == [pairs, pairs]
    assert known["same_orders"].tolist() == [pairs, 0]
    assert known["first_orders"].tolist() == [0, pairs]
    tests = read_table(layout.root, "paired_tests")
    tests = tests[tests["value"] == "preference"]
    assert len(tests) == 2 * len(others)
    assert not tests["tested"].any()
    first = tests[tests["measure"] == "outcome_better_first"]
    assert (first["difference"] == 0).all()
    assert (tests["verdict"] == "note").all()

    report = run.json("report.json")
    said = {one["about"]: one for one in report["statements"]}
    assert all(f"outcome_better:{name}-control" in said for name in others)
    assert all(
        one["text"].partition("udged by judge-")[1] for about, one in said.items() if about.startswith("outcome_better")
    )
    assert "judge-guess (judge_guess) guesses the variant of" in said["data:guess"]["text"]
    assert not any("judge_guess" in about for about in said)
    assert read_table(layout.root, "paired_tests")["measure"].str.contains("guess").sum() == 0
    note = said["data:judges"]["text"]
    assert "judge_guess" not in note
    assert f"both orders agree on {pairs} of {pairs} pairs" in note
    assert f"on {pairs} it prefers the first answer both times, and on 0 the second: it prefers by position" in note
    page = (layout.root / "report.html").read_text()
    assert "As judged by judge-x (better)" in page or "as judged by judge-x (better)" in page
    assert "preferred to control: " in "".join(path.read_text() for path in (layout.root / "explorer").rglob("*.js"))
    assert run.json("verified.json")["problems"] == []
    assert run.planned() == {}

    # A lost judgement comes back alone, as it was; the answer that it was compared with is an input of it.
    path = layout.judgement("better", "calm", "gsm8k_0003")
    before = json.loads(path.read_text())
    path.unlink()
    assert not layout.to_label.exists()  # labels of answers correct neither a comparison nor a guess
    assert run.planned() == {"judge": 1, **dict.fromkeys(REMADE - {"list_answers_to_label"}, 1)}
    count = len(server.requests())
    run.run()
    assert len(server.requests()) == count + 2
    after = json.loads(path.read_text())
    for made in (before, after):
        made.pop("sha256")
        for one in made["orders"]:
            one.pop("timing")
            one.pop("attempts")
    assert after == before
    for file in ("trajectory.jsonl", "agent_state.json", "sample.json"):
        (layout.pair("control", "gsm8k_0003") / file).unlink()
    assert run.planned()["judge"] == 2 * len(others) + 1  # all that its answer was compared with, and its own guess
    run.run()
    # Another reference, or rubric, makes the judgements again, and no answer.
    for change in ({"rubric": "Which is kinder?"}, {"compare_with": "calm", "trait": "by calm"}):
        config["graders"] = [{**judges[0], **change}, *judges[1:], "number"]
        config["analysis"] = {"references": ["control", "calm"]}
        again = run.planned()
        assert again["judge"] == pairs
        assert "generate" not in again
