"""What the dry run says about the cost of answers and judgements by APIs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.api import api_request, most_tokens
from emoprobe.conversations.samples import draw
from emoprobe.results.layout import Layout
from emoprobe.workflow.api_costs import TOKEN_BYTES, cost_lines, most_of_all
from tests.judges import judge

TURNS = [{"text": "Try again."}, {"text": "Sure?"}]
JUDGE = judge(model="judge")


def config(**sections: Any) -> Config:
    return parse_config(
        {
            "experiment": {"name": "one"},
            "model": {"source": "gpt-x"},
            "dataset": {"samples": 2},
            "generation": {"backend": "api", "max_tokens": 40},
            "capture": {"enabled": False},
            "workers": {"endpoints": ["https://a.example.com"], **sections.pop("workers", {})},
            **sections,
        }
    )


def lines(settings: Config, folder: Path, *variants: str) -> list[str]:
    pairs = [(variant, "x") for variant in variants or ("control", "control")]
    targets = SimpleNamespace(found=None, layout=Layout.of("one", folder), memory=None, pairs=pairs)
    return cost_lines(SimpleNamespace(configs={"one": settings}), {"one": targets})  # type: ignore[arg-type, dict-item]


def test_every_turn_counts_with_the_answers_before_it(tmp_path: Path) -> None:
    single = most_of_all(config(), tmp_path)
    settings = config(conversation={"kind": "scripted", "turns": TURNS})
    assert single is not None
    found = most_of_all(settings, tmp_path)
    assert found is not None
    assert found[1] == 3 * single[1] == 2 * 3 * 40
    first = [most_tokens(api_request(settings, "control", sample))[0] for sample in draw(settings.dataset, 42)]
    assert sum(first) == single[0]
    # A third of the turns has one answer before it, and a third two, besides the messages of the turns before.
    assert found[0] > 3 * single[0] + 2 * (1 + 2) * TOKEN_BYTES * 40


def test_a_comparison_costs_two_requests_with_two_answers_each(tmp_path: Path) -> None:
    prices = {name: {"input": 1e6, "output": 0.0} for name in ("gpt-x", "judge")}

    def judging(**keys: Any) -> tuple[float, int]:
        one = judge(**{**JUDGE, **keys})
        variants = {"control": {}, "joy": {"text": "Hurray!"}}
        settings = config(workers={"prices": prices}, variants=variants, graders=["number", one])
        (line,) = [line for line in lines(settings, tmp_path, "control", "joy") if "judgements" in line]
        bound, rest = line.partition("about ")[2].split(" at most for ")
        return float(bound), int(rest.partition(" requests")[0])

    alone, requests = judging()
    compared, twice = judging(compare_with="control")
    assert (requests, twice) == (2, 2)  # joy's answer in both orders
    assert compared >= alone + 2 * TOKEN_BYTES * 40


def test_the_limit_is_compared_with_answers_and_judgements_together(tmp_path: Path) -> None:
    prices = {name: {"input": 0.0, "output": 1e6} for name in ("gpt-x", "judge")}
    settings = config(workers={"prices": prices, "max_cost": 1e9}, graders=["number", JUDGE])
    answers, judgements = lines(settings, tmp_path)
    assert "one: cost: at most 80 for all trajectories" in answers
    assert "max_cost" not in answers
    together = float(judgements.partition("together at most ")[2].partition(" ")[0])
    alone = float(judgements.partition("about ")[2].partition(" ")[0])
    assert together == 80 + alone
    for limit, short in ((together, False), (max(80.0, alone) + 1, True)):
        settings = config(workers={"prices": prices, "max_cost": limit}, graders=["number", JUDGE])
        assert ("may not suffice" in lines(settings, tmp_path)[1]) is short
