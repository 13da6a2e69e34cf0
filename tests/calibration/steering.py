"""How often a direction that does what random ones do is called found, and how often one that does more is not.

A world draws what each direction does to each question, or activations that directions are fitted to by the pipeline's
functions. Its runs end in the tables of the analysis, as an experiment's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd

from emoprobe.analysis.statistics import LEVEL
from emoprobe.analysis.steering.direction_ranking import rank
from emoprobe.analysis.steering.direction_tests import candidates, direction_rows
from emoprobe.analysis.steering.effect_grid import PRIMARY_OUTCOME, EffectGrid, Limits, coherent
from emoprobe.analysis.steering.tables import effect_rows, steering_tests
from emoprobe.config.files import parse_config
from emoprobe.config.section import CONTROL
from emoprobe.steering.directions import MAKERS, Stream, unit
from emoprobe.steering.grid import LEAST_TEXTS, SteeringGrid
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Intervals, Row

LIMITS = Limits(max_perplexity=2.0, max_repetition=0.1)


WIDTH = 48  # of the stream that directions are fitted to


@dataclass(frozen=True)
class Fitting:
    """Activations that directions are fitted to; the texts of every tone are drawn as those of the filler.

    Attributes:
        texts: of each tone.
        questions: of the fitting half.
        reference_texts: of the filler; 0: as many as a tone has.
        share: of the variance of a difference that is between texts.
        kind: how texts are distributed; `outliers`: one in eight lies far off along one axis; `topics`: texts go with
            the topic of their questions.
        read: which directions the model answers to: any, those along which texts vary, or those along which nothing does.
        methods: of fitting.
        orthogonal: whether directions without what any text adds are tested too.
    """

    texts: int
    questions: int = 64
    reference_texts: int = 0
    share: float = 0.95
    kind: Literal["normal", "heavy", "outliers", "topics", "spread"] = "normal"
    read: Literal["any", "varying", "still"] = "any"
    methods: tuple[str, ...] = ("diff_means",)
    orthogonal: bool = False


@dataclass(frozen=True)
class World:
    """What directions do to log p(gold), in nats.

    Attributes:
        name: what it is.
        questions: of the tones' directions.
        control_questions: of the controls, the first so many; 0: all.
        tones: directions that are tested.
        random: random directions.
        shuffled: shuffled-label directions of each tone; 0: the tested directions are no tones' but from files.
        fitted: how many times as much whatever was fitted to activations does, shuffled-label directions included.
        layers: how many.
        doses: that are added.
        spread: standard deviation over directions of the effect of dose 1.
        tails: degrees of freedom of what differs between directions and questions (Student's t).
        unequal: standard deviation of the logarithm of how strongly a question answers to anything.
        common: share of a direction's effect that is the same for all directions.
        damage: what dose 1 takes from every question, growing with the square.
        breaking: logarithm of the perplexity ratio of dose 1, growing with the square, other for each direction.
        draws: of each question.
        groups: of questions; 0: each stands for itself.
        lost: share of the trajectories without a score.
        fitting: where directions come from; None: from nowhere, so that their effects are drawn.
    """

    name: str
    questions: int = 24
    control_questions: int = 0
    tones: int = 2
    random: int = 39
    shuffled: int = 0
    fitted: float = 1.0
    layers: int = 2
    doses: tuple[float, ...] = (-1.0, -0.5, 0.5, 1.0)
    spread: float = 0.3
    tails: float = 30.0
    unequal: float = 0.3
    common: float = 0.0
    damage: float = 0.0
    breaking: float = 0.1
    draws: int = 1
    groups: int = 0
    lost: float = 0.0
    fitting: Fitting | None = None


PLAIN = World("plain")
WORLDS = (
    PLAIN,
    World("few questions for controls", questions=48, control_questions=10),
    World("heavy tails", tails=3.0, unequal=0.8),
    World("heavy tails, few questions for controls", questions=64, control_questions=12, tails=3.0, unequal=0.8),
    World("directions share most of what they do", common=0.8, damage=0.2),
    World("any push harms", damage=1.0, spread=0.1),
    World("large doses break the text, and harm", damage=0.5, breaking=0.8, doses=(-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)),
    World("one tone, one layer, 8 questions", questions=8, tones=1, layers=1),
    World("four tones, 79 controls", tones=4, random=79, control_questions=12),
    World("many cells", layers=6, doses=(-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0), random=39, questions=16),
    World("tones", shuffled=20),
    World("tones, anything fitted does three times as much", shuffled=20, fitted=3.0),
    World("one tone, 12 questions, 8 for controls", 12, 8, tones=1, shuffled=20, layers=1, fitted=2.0),
    World("draws and groups", questions=40, draws=2, groups=16, unequal=0.6),
    World("lost answers", questions=32, lost=0.003),
    World("nothing moves anything", spread=0.0),
    *(World(f"texts as the filler's, {texts}", shuffled=20, fitting=Fitting(texts)) for texts in (24, 64)),
    World("texts as the filler's, one a question", shuffled=20, fitting=Fitting(64, 24)),
    World("texts as the filler's, one tone", tones=1, shuffled=20, fitting=Fitting(24)),
    World("texts as the filler's, one tone, one cell", tones=1, shuffled=20, layers=1, doses=(0.5,), fitting=Fitting(24)),
    World("texts as the filler's, 4 tones", tones=4, random=79, shuffled=20, fitting=Fitting(24), layers=1),
    World("texts as the filler's, all that varies", shuffled=20, fitting=Fitting(24, share=0.99, read="varying")),
    World("texts as the filler's, heavy tails", tails=3.0, shuffled=20, fitting=Fitting(24, kind="heavy")),
    World("texts as the filler's, outliers", shuffled=20, fitting=Fitting(24, kind="outliers", read="varying")),
    World("texts as the filler's, that go with topics", shuffled=20, fitting=Fitting(24, kind="topics")),
    World("texts of other variance", shuffled=20, fitting=Fitting(24, kind="spread", read="varying")),
    World("texts of unequal numbers of questions", shuffled=20, fitting=Fitting(32, 60)),
    World("48 texts and 24 of the filler", shuffled=20, fitting=Fitting(48, 96, reference_texts=24)),
    World("probes, where nothing varies", shuffled=20, fitting=Fitting(24, methods=("diff_means", "probe"), read="still")),
    World("orthogonal directions", shuffled=20, fitting=Fitting(24, orthogonal=True, read="varying")),
)  # fmt: skip


def beyond_shuffled(texts: int, runs: int, seed: int, shuffles: int = 20) -> float:
    """Return how often the mean of so many texts exceeds, at 5 %, means in which half of the texts are exchanged.

    The texts of tone and reference are drawn alike, and what the model reads of a text is a number.
    """
    generator = np.random.default_rng(seed)
    effects = generator.normal(size=(runs, texts))
    signs = np.broadcast_to(np.where(np.arange(texts) % 2, -1.0, 1.0), (runs, shuffles, texts))
    real = np.abs(effects.mean(axis=1))
    shuffled = np.abs((generator.permuted(signs, axis=-1) * effects[:, None]).mean(axis=2))
    reached = (shuffled >= real[:, None] - 1e-12).sum(axis=1)
    return float(((1 + reached) / (1 + shuffles) <= LEVEL).mean())


@dataclass
class Draw:
    """What one experiment of a world does: mean effects (directions, layers, doses), and the table of it."""

    names: list[str]
    families: list[str]
    tones: list[str | None]
    truth: np.ndarray
    changes: np.ndarray  # (directions, layers, doses, questions, draws)
    base: np.ndarray  # (questions, draws)
    strength: np.ndarray  # (questions)
    log_ratio: np.ndarray  # (directions, layers, doses)
    groups: list[str] | None
    lost: np.ndarray  # as changes

    def plant(self, layer: int, dose: int, effect: float) -> None:
        """Let the first tone's direction have a mean effect in one cell."""
        moved = effect - self.truth[0, layer, dose]
        self.changes[0, layer, dose] += moved * self.strength[:, None]
        self.truth[0, layer, dose] = effect


@cache
def fitted_grid(world: World) -> SteeringGrid:
    """The directions of a world whose directions are fitted."""
    assert world.fitting is not None
    fitting, tones = world.fitting, [f"tone{number}" for number in range(world.tones)]
    counts = {"filler": fitting.reference_texts or fitting.texts} | dict.fromkeys(tones, fitting.texts)
    variants = {name: {"texts": [f"{name} {number}" for number in range(count)]} for name, count in counts.items()}
    for tone in tones:
        variants[tone]["valence"] = "negative"  # type: ignore[assignment]
    controls = {"random": world.random, "shuffled": world.shuffled, "orthogonal": fitting.orthogonal}
    steering = {"enabled": True, "methods": list(fitting.methods), "controls": controls}
    return SteeringGrid(
        parse_config(
            {
                "dataset": {"samples": 2 * fitting.questions},
                "variants": {CONTROL: {}, **variants},
                "steering": steering,
            }
        ),
        (None,) * (2 * fitting.questions),
        world.layers,
    )


def texts_of(world: World) -> dict[str, int]:
    """Tone → number of texts that its directions were fitted on."""
    tones = [f"tone{number}" for number in range(world.tones)]
    if world.fitting is None:
        return dict.fromkeys(tones, LEAST_TEXTS)
    return {tone: len(set(fitted_grid(world).text_blocks(tone).values())) for tone in tones}


def fitted_vectors(
    world: World, generator: np.random.Generator
) -> tuple[list[tuple[str, str, str | None]], np.ndarray]:
    """Name, family and tone of each direction, and the directions, (directions, layers, WIDTH)."""
    grid, fitting = fitted_grid(world), world.fitting
    assert fitting is not None
    shape = (world.layers, WIDTH)
    varies = np.arange(1, WIDTH + 1) ** -0.5

    def drawn(count: int, wide: float = 1.0) -> np.ndarray:
        if fitting.kind == "heavy":
            heavy: np.ndarray = varies * generator.standard_t(3, (count, *shape)) / np.sqrt(3)
            return heavy
        values = generator.standard_normal((count, *shape)) * wide
        if fitting.kind == "outliers":
            values[..., 0] += np.where(generator.random((count, 1)) < 1 / 8, 7.0, -1.0)
        found: np.ndarray = varies * values
        return found

    samples = grid.fitted
    topic = np.arange(len(samples)) % 6
    topics = drawn(6) if fitting.kind == "topics" else np.zeros((6, *shape))
    base = 3 * drawn(len(samples)) + topics[topic]
    values = {CONTROL: base}
    places = grid.halves.fitted
    for name in (grid.reference, *grid.tones):
        count = len(grid.config.variants[name].texts or [])
        # One tone of a world of other variance has texts that vary twice as much as all others'.
        own = drawn(count, 2.0 if fitting.kind == "spread" and name == "tone0" else 1.0)
        text = own[np.array(places) % count]
        if fitting.kind == "topics":
            text = text * (1 + 0.5 * np.sin(topic))[:, None, None]
        within = np.sqrt(1 / fitting.share - 1) * drawn(len(samples))
        values[name] = base + text + within
    stream = Stream(values, list(range(world.layers)), samples)
    kept = [direction for direction in grid.directions.values() if direction.family not in ("random", "shuffled")] + [
        direction for direction in grid.directions.values() if direction.family in ("random", "shuffled")
    ]
    vectors = [
        generator.standard_normal(shape)
        if direction.family == "random"
        else MAKERS[direction.family](grid, direction, stream)
        for direction in kept
    ]
    rows = [unit(one, direction.name, list(range(world.layers))) for one, direction in zip(vectors, kept, strict=True)]
    return [(one.name, one.family, one.tone) for one in kept], np.array(rows, dtype=float)


def draw(world: World, generator: np.random.Generator) -> Draw:
    """One experiment."""
    tones = [f"tone{number}" for number in range(world.tones)]
    directions: list[tuple[str, str, str | None]] = [
        (tone, "tone", tone) if world.shuffled else (tone, "file", None) for tone in tones
    ]
    directions += [(f"shuffled-{tone}-{n:02d}", "shuffled", tone) for tone in tones for n in range(world.shuffled)]
    directions += [(f"random-{number:03d}", "random", None) for number in range(world.random)]
    vectors = None
    if world.fitting is not None:
        directions, vectors = fitted_vectors(world, generator)
    count, doses = len(directions), np.array(world.doses)
    tested = sum(family not in ("random", "shuffled") for _, family, _ in directions)
    shape = (count, world.layers, 1)
    group = np.arange(world.questions) % world.groups if world.groups else np.arange(world.questions)
    strength = np.exp(world.unequal * generator.normal(size=group.max() + 1) - world.unequal**2 / 2)[group]
    own = generator.standard_t(world.tails, shape) * np.sqrt(1 - world.common)
    own = own + generator.normal(size=(1, world.layers, 1)) * np.sqrt(world.common)
    spread = np.full(shape, world.spread)
    spread[: count - world.random] *= world.fitted
    slope = spread * own
    scatter = generator.standard_t(world.tails, (count, world.layers, 1, world.questions, 1))
    if vectors is not None:
        assert world.fitting is not None
        # The model answers along some directions, and each question a little otherwise.
        weights = np.arange(1, WIDTH + 1) ** {"any": 0.0, "varying": -0.5, "still": 0.5}[world.fitting.read]
        weights = world.spread * weights / np.sqrt(np.mean(weights**2))
        gain = weights * generator.standard_t(3, (world.layers, WIDTH)) / np.sqrt(3)
        each = weights * generator.standard_t(world.tails, (world.layers, world.questions, WIDTH))
        slope = np.einsum("dlw,lw->dl", vectors, gain)[..., None]
        scatter = np.einsum("dlw,lqw->dlq", vectors, each)[:, :, None, :, None] / max(world.spread, 1e-9)
        spread = np.full(shape, world.spread)
    truth = slope * doses - world.damage * doses**2 * np.exp(0.2 * generator.normal(size=shape))
    scatter = scatter * doses[:, None, None]
    wobble = generator.standard_t(world.tails, (count, world.layers, len(doses), world.questions, world.draws))
    noise = spread[..., None, None] * (scatter + 0.5 * wobble)
    changes = (truth[..., None, None] + noise) * strength[:, None]
    lost = generator.random(changes.shape) < world.lost
    few = world.control_questions or world.questions
    lost[tested:, :, :, few:] = True
    log_ratio = world.breaking * doses**2 * np.exp(0.4 * generator.normal(size=shape))
    return Draw(
        [name for name, _, _ in directions], [family for _, family, _ in directions], [tone for _, _, tone in directions],
        truth, changes, generator.normal(-3, 1, (world.questions, world.draws)), strength, log_ratio,
        [f"g{number}" for number in group] if world.groups else None, lost,
    )  # fmt: skip


def table(world: World, drawn: Draw, generator: np.random.Generator) -> pd.DataFrame:
    """The table `steering` of an experiment."""
    at = np.stack(np.meshgrid(*map(np.arange, drawn.changes.shape), indexing="ij"), axis=-1).reshape(-1, 5)
    at = at[~drawn.lost.reshape(-1)]
    direction, layer, dose, question, number = at.T
    bare = np.stack(np.meshgrid(*map(np.arange, drawn.base.shape), indexing="ij"), axis=-1).reshape(-1, 2)
    none = len(bare)

    def column(values: list[str | None], codes: np.ndarray, unsteered: str | None) -> np.ndarray:
        found: np.ndarray = np.array([*values, unsteered], dtype=object)[np.r_[codes, np.full(none, len(values))]]
        return found

    steered = len(direction)
    questions, draws = np.r_[question, bare[:, 0]], np.r_[number, bare[:, 1]]
    log_p = drawn.base[questions, draws]
    log_p[:steered] += drawn.changes[tuple(at.T)]
    log_ratio = np.zeros(len(questions))
    log_ratio[:steered] = drawn.log_ratio[direction, layer, dose]
    return pd.DataFrame(
        {
            "direction": column([*drawn.names], direction, "none"),
            "family": column([*drawn.families], direction, "none"),
            "tone": column(drawn.tones, direction, None),
            "operation": column(["add"], np.zeros_like(layer), None),
            "phase": column(["all"], np.zeros_like(layer), None),
            "layers": column([str(place) for place in range(world.layers)], layer, None),
            "dose": np.r_[np.array(world.doses)[dose], np.zeros(none)],
            "variant": "control",
            "sample_id": np.array([f"q_{place:04d}" for place in range(world.questions)], dtype=object)[questions],
            "draw": draws + 1,
            "group": np.array(drawn.groups, dtype=object)[questions] if drawn.groups else None,
            "correct": pd.array(generator.random(len(questions)) < 0.5, dtype="boolean"),
            "log_p_gold": log_p,
            "completion_tokens": pd.array(np.full(len(questions), 20), dtype="Int64"),
            "repetition": 0.1,
            "perplexity": np.exp(0.5 + log_ratio + 0.1 * generator.normal(size=len(questions))),
            "kl": 0.1,
        }
    )


@dataclass
class Tally:
    """What the runs of a world showed; `by_family` counts those in which a direction of a family is found."""

    runs: int = 0
    by_family: Counter[str] = field(default_factory=Counter)
    told: int = 0
    planted: int = 0
    intervals: Intervals = field(default_factory=Intervals)
    chosen: Intervals = field(default_factory=Intervals)

    @property
    def false(self) -> int:
        """Runs with a false sentence, of the family with the most: families are corrected each."""
        return max(self.by_family.values(), default=0)


def run(world: World, runs: int, seed: int, power: bool = True) -> Tally:
    """Simulate and analyse a world; then plant the stated detectable effect, and analyse it again."""
    generator = np.random.default_rng(seed)
    tally, texts = Tally(runs), texts_of(world)
    for _ in range(runs):
        drawn = draw(world, generator)
        grid = EffectGrid(table(world, drawn, generator))
        flags = coherent(grid, LIMITS)
        rankings = {number: rank(grid, number, LIMITS) for number in candidates(grid)}
        rows = direction_rows(grid, flags, rankings, texts)
        tally.by_family.update({row["family"] for row in rows if row["verdict"] == "found"})
        for row in rows:
            if row.get("low") is not None and not np.isnan(row["low"]):
                truth = _truth(world, drawn, row)
                tally.chosen.add(row["low"], row["high"], truth)
        for row in effect_rows(grid, flags, rankings)[: 6 * world.layers * len(world.doses) * world.tones]:
            if row["outcome"] == PRIMARY_OUTCOME and not np.isnan(row["low"]):
                tally.intervals.add(row["low"], row["high"], _truth(world, drawn, row))
        first = rows[0]
        if power and first["reason"] is None and not np.isnan(first.get("detectable", np.nan)):
            place = int(first["detectable_layers"]), world.doses.index(first["detectable_dose"])
            drawn.plant(*place, first["detectable"] * generator.choice([-1.0, 1.0]))
            again = steering_tests(table(world, drawn, generator), LIMITS, texts)
            tally.planted += 1
            tally.told += again["verdict"].iloc[0] == "found"
    return tally


def _truth(world: World, drawn: Draw, row: dict[str, object]) -> float:
    place = (
        drawn.names.index(str(row["direction"])),
        int(str(row["layers"])),
        world.doses.index(float(str(row["dose"]))),
    )
    return float(drawn.truth[place])


def rows(world: World, runs: int, seed: int) -> list[Row]:
    """What a world showed: false findings, planted ones that are told, and intervals."""
    tally = run(world, runs, seed)
    found = [Row("false", "steering found", world.name, runs, tally.false / runs, most(runs))]
    if tally.planted:
        share = tally.told / tally.planted
        found.append(Row("told", "steering, detectable effect", world.name, tally.planted, share, least(tally.planted)))
    for kind, intervals in (("steering effects", tally.intervals), ("steering, chosen cell", tally.chosen)):
        if intervals.widths:
            found.append(intervals.row(kind, world.name, least(runs, COVERAGE)))
    return found
