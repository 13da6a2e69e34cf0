"""How often a feature is said to differ with the tone where none does, and where some do.

Each world draws the mean activations of sparse features over the question and the response of every trajectory. Its
runs end in the same choice, tests and sentences as an experiment's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.features.differences import Block, FeatureRanking, compared, corrected
from emoprobe.analysis.features.tokens import halves
from emoprobe.report.statements.features import statements
from emoprobe.results.catalogue import TABLES
from emoprobe.results.statement import Statement
from emoprobe.results.tables import frame
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row

WIDTH, CHOSEN = 60, 10
PARTS = ("question", "response")
TONES = ("anger", "fear", "joy", "hope")
PLANTED = 6  # features that differ, where some do
SEED = 11
Values = npt.NDArray[np.float64]


@dataclass
class Draw:
    """One simulated experiment: its rows, and the level that each feature is drawn around, part → (rows, WIDTH)."""

    generator: np.random.Generator
    table: pd.DataFrame
    levels: dict[str, Values]
    rare: float = 0.5

    def by(self, *columns: str, scale: float) -> Values:
        """A random vector for each value of some columns, (rows, WIDTH)."""
        codes = self.table.groupby(list(columns), sort=False, dropna=False).ngroup().to_numpy()
        found: Values = scale * self.generator.normal(size=(codes.max() + 1, WIDTH))[codes]
        return found

    def add(self, values: Values) -> None:
        """Add to the levels of both parts."""
        self.levels = {part: level + values for part, level in self.levels.items()}

    def activations(self) -> dict[str, Values]:
        """Sparse and skewed, as means of features over few tokens are: many zeros, and a long tail."""
        shape = (len(self.table), WIDTH)
        return {
            part: np.maximum(level + self.generator.exponential(1.0, shape) - 0.5, 0.0)
            * (self.generator.random(shape) < self.rare)
            for part, level in self.levels.items()
        }


def trajectories(texts: Mapping[str, int], questions: int, groups: int = 0) -> pd.DataFrame:
    """A row for each variant and question; `texts` says how many texts a variant has."""
    rows = [
        {
            "variant": variant,
            "sample_id": f"s_{number + 1:04d}",
            "index": number,
            "draw": 1,
            "group": f"g{number % groups}" if groups else None,
            "paraphrase": number % count if count else None,
        }
        for variant, count in texts.items()
        for number in range(questions)
    ]
    return pd.DataFrame(rows).astype({"paraphrase": "Int64", "group": "string"})


def start(
    generator: np.random.Generator, questions: int, texts: int, groups: int = 0, filler_texts: int | None = None
) -> Draw:
    """A filler and four tones with so many texts each, and a control."""
    counts = {"control": 0, "filler": texts if filler_texts is None else filler_texts, **dict.fromkeys(TONES, texts)}
    table = trajectories(counts, questions, groups)
    table["half"] = halves(table, int(generator.integers(1 << 30)))
    levels = {part: np.zeros((len(table), WIDTH)) for part in PARTS}
    draw = Draw(generator, table, levels)
    draw.add(draw.by("sample_id", scale=0.5))  # questions differ
    return draw


def nothing(draw: Draw) -> None:
    """Noise and questions alone."""


def rare(draw: Draw) -> None:
    """Features that are active in one trajectory of twelve."""
    draw.rare = 1 / 12


def text_identity(draw: Draw) -> None:
    """Every text moves every feature in its own way."""
    draw.add(draw.by("variant", "paraphrase", scale=0.7))


def outlying_texts(draw: Draw) -> None:
    """One text in eight moves a feature, and by a lot."""
    sizes = draw.by("variant", "paraphrase", scale=1.0)
    draw.add(np.where(np.abs(sizes) > 1.53, 4.0 * np.sign(sizes), 0.0))


def text_and_length(draw: Draw) -> None:
    """Texts differ, and the longer the response to a question under a text, the more of everything there is."""
    draw.add(draw.by("variant", "paraphrase", scale=0.5))
    length = draw.by("variant", "sample_id", scale=0.7)[:, :1]
    draw.levels["response"] = draw.levels["response"] + length


def template(draw: Draw) -> None:
    """What a tone does depends on the template, and is nothing on average."""
    draw.add(draw.by("variant", "group", scale=0.7))


def one_differs(draw: Draw) -> None:
    """Anger moves many features, the other tones none. Features are active on most trajectories."""
    draw.rare = 0.9
    own = draw.table["variant"].eq("anger").to_numpy(dtype=float)[:, None]
    moved: Values = (np.arange(WIDTH) < WIDTH // 2).astype(np.float64)
    draw.add(np.asarray(4.0 * own * moved, dtype=np.float64))
    draw.add(draw.by("variant", "paraphrase", scale=0.3))


def some_differ(draw: Draw) -> None:
    """Each tone moves a few features, and its texts differ. Features are active on most trajectories."""
    draw.rare = 0.9
    for number, tone in enumerate(TONES):
        own = draw.table["variant"].eq(tone).to_numpy(dtype=float)[:, None]
        moved: Values = np.isin(np.arange(WIDTH), np.arange(PLANTED) + PLANTED * number).astype(np.float64)
        draw.add(np.asarray(4.0 * own * moved, dtype=np.float64))
    draw.add(draw.by("variant", "paraphrase", scale=0.2))


@dataclass(frozen=True)
class World:
    """What is planted, on how many questions, with how many texts and groups; which tones differ."""

    plant: Callable[[Draw], None]
    questions: int
    texts: int
    groups: int = 0
    differing: tuple[str, ...] = ()
    filler_texts: int | None = None

    @property
    def name(self) -> str:
        """As it is reported."""
        groups = f", {self.groups} groups" if self.groups else ""
        filler = "" if self.filler_texts is None else f" and {self.filler_texts} of the filler"
        return f"{self.plant.__name__}, {self.questions} questions, {self.texts} texts{filler}{groups}"


WORLDS = [
    *(World(plant, questions, 8) for plant in (nothing, rare, text_identity) for questions in (32, 96)),
    *(World(plant, questions, 1) for plant in (nothing, rare) for questions in (24, 96)),
    World(text_identity, 96, 6),
    World(text_identity, 96, 1),
    World(text_identity, 96, 8, filler_texts=1),
    World(text_identity, 96, 8, filler_texts=6),
    World(text_identity, 96, 96),
    *(World(plant, 96, texts) for plant in (outlying_texts, text_and_length) for texts in (6, 8, 24, 96)),
    World(template, 96, 1, groups=24),
    World(template, 96, 8, groups=24),
    World(one_differs, 96, 8, differing=("anger",)),
    World(some_differ, 96, 8, differing=TONES),
]


def simulate(world: World, runs: int, seed: int = SEED) -> Iterator[tuple[pd.DataFrame, list[Statement]]]:
    """The table `features` and the statements of each run."""
    for run in range(runs):
        generator = np.random.default_rng([seed, world.questions, world.texts, run])
        draw = start(generator, world.questions, world.texts, world.groups, world.filler_texts)
        world.plant(draw)
        found = _tested("autoencoder", draw, draw.activations())
        # A random autoencoder has features of its own, which are sparse as well and tell nothing.
        empty = Draw(
            generator, draw.table, {part: np.zeros_like(level) for part, level in draw.levels.items()}, draw.rare
        )
        found += _tested("random", empty, empty.activations())
        table = frame(TABLES["features"], found)
        yield table, statements(frame(TABLES["autoencoders"], [AUTOENCODER]), table)


AUTOENCODER = {
    "name": "seed-1",
    "kind": "trained",
    "toy": True,
    "layer": 1,
    "d": 8,
    "width": WIDTH,
    "training_tokens": 9,
}
AUTOENCODER |= {"architecture": "topk", "tokens": 9, "fvu": 0.5, "l0": 3.0, "dead": 0.0, "scored_tokens": 0}


def _tested(method: str, draw: Draw, values: dict[str, Values]) -> list[dict[str, object]]:
    ranking = FeatureRanking(TONES, "filler", draw.table)
    for block in _blocks(draw, values, "fit"):
        ranking.add(block)
    choices = ranking.choose(CHOSEN)
    columns = [choice.feature for choice in choices]
    chosen = {part: own[:, columns] for part, own in values.items()}
    rows = corrected(compared(draw.table, "filler", choices, _blocks(draw, chosen, "test")))
    return [{"method": method, "layer": 1} | row for row in rows]


def _blocks(draw: Draw, values: dict[str, Values], half: str) -> Iterator[Block]:
    own = draw.table["half"].eq(half).fillna(False).to_numpy(dtype=bool)
    for rows in draw.table[own].groupby("sample_id", sort=False).groups.values():
        places = np.asarray(rows, dtype=np.int64)
        yield places, {part: each[places] for part, each in values.items()}


def rows(world: World, runs: int) -> list[Row]:
    """How often a tone that does not differ is told to, by its tests and by its sentence; and one that does."""
    wrong_tests = wrong_sentences = told = 0
    false_features: list[float] = []
    for table, said in simulate(world, runs):
        own = table[(table["method"] == "autoencoder") & table["differs"].fillna(False)]
        wrong_tests += not {*own["variant"]} <= {*world.differing}
        found = {one.about.removeprefix("feature:") for one in said if one.verdict == "found"}
        wrong_sentences += not found <= {*world.differing}
        told += {*world.differing} <= found
        if world.plant is some_differ and len(own):
            planted = {(tone, PLANTED * number + k) for number, tone in enumerate(TONES) for k in range(PLANTED)}
            false_features.append(
                float(np.mean([pair not in planted for pair in zip(own["variant"], own["feature"], strict=True)]))
            )
    found_rows = []
    if set(world.differing) != set(TONES):
        limit = most(runs)
        found_rows += [
            Row("false", "features, by tests", world.name, runs, wrong_tests / runs, limit),
            Row("false", "features, found", world.name, runs, wrong_sentences / runs, limit),
        ]
    if world.differing:
        found_rows.append(Row("told", "features, found", world.name, runs, told / runs, least(runs)))
    if false_features:
        # Of the features that are said to differ, no more than one in twenty may not.
        share = float(np.mean(false_features))
        found_rows.append(Row("false", "features, of those reported", world.name, runs, share, most(runs)))
    return found_rows
