"""How often a judge prefers the answers of a variant: coverage of the interval, and whether the order decides.

The judge is asked of each pair in both orders. It names the first answer in a share of all replies, whatever they say;
else it prefers either by its quality, which is symmetric about that of the reference unless a world says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.judges import position_columns
from emoprobe.analysis.outcomes import Outcome
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.statistics import LEVEL
from emoprobe.conversations.judging import FIRST, SECOND, TIE, agreement_of_orders, preference
from emoprobe.graders.registry import JUDGED, ORDERS
from emoprobe.results.tables import completed
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Intervals, Row

COLUMN, REFERENCE = "outcome_x", "filler"
OUTCOME = Outcome("x", COLUMN, "preference", limits=(0.0, 1.0), judge="judge-x (x)", against=REFERENCE)


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        position: share of replies that name the first answer, whatever it says.
        shift: by how much answers of the first tone are better, in logits.
        ties: share of the other replies that prefer none.
        spread: standard deviation of a question's quality, in logits.
        text_spread: the same of a text.
        lost: share of pairs without a value.
        questions: how many.
        texts: of each variant, in step with one another; 1: each tone has one.
        draws: of each question.
        tones: how many.
        asks: of the reference, each with another of its texts; pairs are of the first.
        reference_spread: standard deviation of a text of the reference, in logits.
        alike: whether all tones have the same answers, so that the judge says the same of them.
    """

    position: float = 0.4
    shift: float = 0.0
    ties: float = 0.1
    spread: float = 1.0
    text_spread: float = 0.0
    lost: float = 0.0
    questions: int = 128
    texts: int = 10_000
    draws: int = 1
    tones: int = 2
    asks: int = 1
    reference_spread: float = 0.0
    alike: bool = False


WORLDS = {
    "no preference, by position alone": World(position=1.0),
    "no preference, first in 40 %": World(),
    "no preference, no leaning to a place": World(position=0.0, ties=0.0),
    "no preference, no leaning to a place, 8 tones with the same answers": World(
        position=0.0, ties=0.0, tones=8, alike=True
    ),
    "no preference, first in 40 %, one text": World(texts=1),
    "no preference, first in 80 %, 32 questions": World(position=0.8, questions=32, texts=1),
    "no preference, first in 40 %, 32 texts that differ": World(texts=32, text_spread=1.0),
    "no preference, first in 20 %, a reference of 96 texts that is asked 4 times": World(
        position=0.2, questions=384, texts=96, asks=4, reference_spread=3.0
    ),
    "no preference, first in 40 %, 3 draws": World(draws=3),
    "no preference, first in 40 %, 5 % lost": World(lost=0.05),
    "planted: 1.2 logits, first in 40 %": World(shift=1.2),
    "planted: 1.2 logits, first in 40 %, one text": World(shift=1.2, texts=1),
    "planted: 1.2 logits, first in 40 %, 32 texts that differ": World(
        shift=1.2, questions=256, texts=32, text_spread=0.5
    ),
    "planted: -1 logit, first in 20 %": World(position=0.2, shift=-1.0),
}


def simulate(world: World, generator: np.random.Generator) -> pd.DataFrame:
    """One table of trajectories with the values of the judge."""
    n, rows = world.questions, []
    of_reference = (
        world.reference_spread * generator.normal(size=min(n, world.texts))[np.arange(n) % min(n, world.texts)]
    )
    said: dict[tuple[int, int], list[str]] = {}
    for number, name in enumerate((REFERENCE, *(f"tone{number}" for number in range(world.tones)))):
        texts = world.text_spread * generator.normal(size=min(n, world.texts))
        better = world.spread * generator.normal(size=n) + texts[np.arange(n) % len(texts)]
        better += (world.shift if number == 1 else 0.0) - of_reference
        for draw in range(1, world.draws + 1):
            for question in range(n):
                row = {"variant": name, "sample_id": f"s_{question:04d}", "draw": draw}
                row["paraphrase"] = question % min(n, world.texts)
                if name == REFERENCE:
                    for ask in range(world.asks):
                        text = (question + ask) % min(n, world.texts)
                        rows.append({**row, "draw": ask * world.draws + draw, "paraphrase": text, "asks": world.asks})
                    continue
                row[JUDGED + "x"] = "value" if generator.random() >= world.lost else "unusable"
                if row[JUDGED + "x"] == "value":
                    replies = [reply(world, better[question], place, generator) for place in (FIRST, SECOND)]
                    if world.alike:
                        replies = said.setdefault((question, draw), replies)
                    row |= {COLUMN: preference(replies), ORDERS + "x": agreement_of_orders(replies)}
                rows.append(row)
    table = pd.DataFrame(rows).assign(valence=None, failure=None)
    return completed(table.astype({COLUMN: "Float64"}), "trajectories")


def reply(world: World, better: float, place: str, generator: np.random.Generator) -> str:
    """What the judge says of a pair in which the variant's answer has this place."""
    if generator.random() < world.position:
        return FIRST
    if generator.random() < world.ties:
        return TIE
    other = SECOND if place == FIRST else FIRST
    return place if generator.random() < expit(better) else other


def tests(world: World, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The row of `paired_tests` of each tone, by its name."""
    made = paired_tests(table, 0.1, [REFERENCE], outcomes=[OUTCOME])
    return {row["variant"]: row for row in plain_rows(made)}


def truth(world: World) -> dict[str, float]:
    """The expected difference of each tone, 2 × the share of comparisons in which it is preferred - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = float(np.linalg.norm([world.spread, world.text_spread, world.reference_spread]))
    decided = (1 - world.position) * (1 - world.ties)

    def expected(shift: float) -> float:
        return decided * (2 * float(weights @ expit(shift + spread * nodes)) / float(weights.sum()) - 1)

    return {f"tone{number}": expected(world.shift if number == 0 else 0.0) for number in range(world.tones)}


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows of one of the worlds."""
    world, generator = WORLDS[name], np.random.default_rng(seed)
    expected = truth(world)
    intervals, by_place = Intervals(), []
    for _ in range(runs):
        table = simulate(world, generator)
        found = tests(world, table)
        for tone, row in found.items():
            intervals.add(row["low"], row["high"], expected[tone])
        by_place.append(position_columns(table[ORDERS + "x"], table["sample_id"])["position_p"] < LEVEL)
    yield intervals.row("a judge's preference", name, least(runs, COVERAGE))
    share = float(np.mean(by_place))
    if world.position:
        yield Row("told", "a judge decides by position", name, runs, share, least(runs))
    else:
        yield Row("false", "a judge decides by position", name, runs, share, most(runs))
