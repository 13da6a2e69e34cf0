"""Graders that are added to a finished experiment: what is planned, made, and made again."""

from __future__ import annotations

from collections.abc import Callable

from emoprobe.results.tables import read_table
from tests.workflow.test_reruns import ANALYSIS, COMPARED, DESCRIBED, TABLES
from tests.workspace import Workspace

FORM = {"name": "logprob", "gold": [" {answer}", " {answer}.0"]}


def test_p_gold_is_added_to_a_finished_experiment_and_costs_no_answer(after: Callable[..., Workspace]) -> None:
    workspace = after()
    answers = workspace.trajectories()
    workspace.config["graders"] = ["number", FORM]
    assert workspace.planned() == {"outcomes": 16, **DESCRIBED, **TABLES}
    workspace.run()
    assert workspace.planned() == {}
    assert workspace.trajectories() == answers

    table = read_table(workspace.layout.root, "trajectories")
    assert table["p_gold"].between(0, 1, inclusive="neither").all()
    tests = read_table(workspace.layout.root, "paired_tests")
    assert set(tests[tests["measure"] == "p_gold"]["family"]) == {"logprob_primary"}
    report = workspace.json("report.json")
    said = [one["text"] for one in report["statements"] if one["about"].startswith("p_gold:")]
    assert len(said) == 3
    assert all("p(gold)" in text for text in said)
    deviation = next(one["text"] for one in report["statements"] if "the graders changed" in one["text"])
    assert "the outcomes besides accuracy" in deviation

    one = workspace.layout.pair("calm", "gsm8k_0003") / "outcomes.json"
    before = one.read_bytes()
    one.unlink()
    assert workspace.planned() == {"outcomes": 1, **TABLES}
    workspace.run("results/tiny/calm/gsm8k_0003/outcomes.json")
    assert one.read_bytes() == before
    workspace.run()  # takes in the file that was made alone
    workspace.config["graders"] = ["number", {**FORM, "margin": 0.02}]
    assert workspace.planned() == {**DESCRIBED, **COMPARED}
    workspace.config["graders"] = ["number", {**FORM, "lead": ""}]
    assert workspace.planned() == {"outcomes": 16, **DESCRIBED, **TABLES}
    workspace.config["graders"] = ["number"]
    assert not workspace.planned().keys() & {"outcomes", "generate"}


POLITE = """
def polite(answer):
    return "please" in answer.completion.lower()
"""


def test_a_grader_that_reads_the_answer_is_added_and_costs_no_answer(after: Callable[..., Workspace]) -> None:
    workspace = after()
    answers = workspace.trajectories()
    module = workspace.folder / "manners.py"
    module.write_text(POLITE)
    polite = {"function": "manners:polite"}
    workspace.config["graders"] = ["number", polite, "sentiment"]
    added = {**DESCRIBED, **ANALYSIS}
    assert workspace.planned() == added
    workspace.run()
    assert workspace.planned() == {}
    assert workspace.trajectories() == answers
    table = read_table(workspace.layout.root, "trajectories")
    assert not table["outcome_polite"].any()
    assert table["outcome_sentiment"].notna().all()
    tests = read_table(workspace.layout.root, "paired_tests")
    assert {"polite_primary", "sentiment_primary", "primary"} <= set(tests["family"])
    said = [one["text"] for one in workspace.json("report.json")["statements"] if one["about"].startswith("outcome_")]
    assert sum("the rate of polite" in text for text in said) == sum("mean sentiment" in text for text in said) == 3

    module.write_text(POLITE.replace("please", "thanks"))
    assert workspace.planned() == ANALYSIS
    module.write_text(POLITE)
    workspace.config["graders"] = ["number", "sentiment", {**polite, "margin": 0.2}]  # another order, another margin
    assert workspace.planned() == {**DESCRIBED, **COMPARED}
    workspace.config["graders"] = ["number", "sentiment"]
    assert workspace.planned() == added
    workspace.config["graders"] = [polite, "sentiment"]  # without number: no accuracies, and no answer again
    assert workspace.planned() == added
    workspace.run()
    report = workspace.json("report.json")
    assert {one["about"].partition(":")[0] for one in report["statements"]} >= {"outcome_polite", "outcome_sentiment"}
    assert not [one for one in report["statements"] if one["about"].startswith("accuracy")]
    page = (workspace.layout.root / "report.html").read_text()
    assert "change the rate of polite in what" in page

    module.write_text("def polite(answer):\n    return 1\n")
    failed = workspace.run(ok=False)
    assert "graders.polite, sample gsm8k_0001: manners:polite returned 1, not True or False" in failed
