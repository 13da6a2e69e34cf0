"""How often the sentences on accuracy are false, and how often a difference of the stated size is seen.

Every run goes the way of the pipeline: a table of trajectories, the tables of the analysis, the statements.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from emoprobe.analysis.behaviour import characteristics
from emoprobe.analysis.estimates import Floats, difference
from emoprobe.analysis.format_noise import format_noise
from emoprobe.analysis.limits import own_noise
from emoprobe.analysis.paired_tests import Scope, paired_tests, verdict
from emoprobe.analysis.power import ACCURACY, PowerDesign, Simulation, centre_of
from emoprobe.analysis.statistics import LEVEL, holm
from emoprobe.report.statements.behaviour import comparisons
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Intervals, Row
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1
UNDECIDED = ("undecided", "note")  # the kinds that claim nothing
SIZES = (8, 20, 64, 1319)
FULL_RUNS = 400

DIFFERENT, EQUIVALENT = ("different", "different_here"), ("equivalent", "equivalent_here")
ONE_EACH = 10_000  # texts of a tone where each question has its own
SKEWED = ((7 / 8, 0.05), (1 / 8, -0.35))


def null_scenes() -> dict[str, Scene]:
    """No tone differs from the filler, or from control where there is none; what else there is differs."""
    scenes = {
        f"null, {texts} texts that differ by {deviation:g}, n = {n}": Scene(n, texts=texts, text_deviation=deviation)
        for texts in (8, 64)
        for deviation in (0.0, 0.3, 0.5)
        for n in SIZES
    }
    scenes |= {f"null, one text, n = {n}": Scene(n, texts=1) for n in SIZES}
    scenes |= {f"null, 3 texts, n = {n}": Scene(n, texts=3, text_deviation=0.3) for n in (64, 1319)}
    scenes |= {
        "null, one tone of one text, n = 12": Scene(12, (0.5,), None, texts=1, difficulty=0.0),
        "null, one tone of one text, n = 50": Scene(50, (0.5,), None, texts=1, difficulty=0.0),
        "null, one tone, n = 20": Scene(20, (0.5,), text_deviation=0.3),
        "null, one tone, n = 400": Scene(400, (0.5,), text_deviation=0.3),
        "null, control alone, n = 400": Scene(400, filler=None, text_deviation=0.3),
        "null, 8 texts and 4 of the filler, n = 400": Scene(400, filler_texts=4, text_deviation=0.3),
        "null, 8 texts and 3 of the filler, n = 400": Scene(400, filler_texts=3, text_deviation=0.5),
        "any text helps, n = 64": Scene(64, (0.7,) * 4, 0.7, 0.4, text_deviation=0.3),
        "any text helps, n = 1319": Scene(1319, (0.7,) * 4, 0.7, 0.4, text_deviation=0.3),
        "texts are cut off, n = 400": Scene(400, cut=0.25, text_deviation=0.3),
        "unmarked answers, n = 64": Scene(64, unmarked=0.3),
        "templates, 100 questions of 60": Scene(100, groups=60, group_interaction=0.7, text_deviation=0.3),
        "templates, 400 questions of 20": Scene(400, groups=20, group_interaction=0.7, text_deviation=0.3),
        "templates, 1319 questions of 100": Scene(1319, groups=100, group_interaction=0.5),
        "templates, one text, 100 questions of 60": Scene(100, texts=1, groups=60, group_interaction=0.7),
        "templates, one text, 400 questions of 20": Scene(400, texts=1, groups=20, group_interaction=0.7),
        "templates, one text, 64 questions of 10": Scene(64, texts=1, groups=10, group_interaction=0.7),
        "templates and 3 texts of the filler, n = 400": Scene(
            400, filler_texts=3, groups=60, group_interaction=0.7, text_deviation=0.3
        ),
        "4 draws, n = 20": Scene(20, draws=4, text_deviation=0.3, difficulty=2.0),
        "4 draws of one text, n = 20": Scene(20, draws=4, texts=1, difficulty=2.0),
        "4 draws, n = 400": Scene(400, draws=4, text_deviation=0.3, interaction=1.0),
        "failures, n = 200": Scene(200, failures=0.02, text_deviation=0.3),
        "near the floor, n = 64": Scene(64, (0.03,) * 4, 0.03, 0.03),
        "near the floor, n = 1319": Scene(1319, (0.01,) * 4, 0.01, 0.01, text_deviation=0.3),
        "near the ceiling, one text, n = 200": Scene(200, (0.98,) * 4, 0.98, 0.98, texts=1),
        "helps here and harms there, n = 400": Scene(400, interaction=1.5, text_deviation=0.3),
        "one of 4 tones harms, n = 400": Scene(400, (0.2, 0.5, 0.5, 0.5), text_deviation=0.3),
        "8 tones, n = 128": Scene(128, (0.6,) * 8, 0.6, 0.6, text_deviation=0.3),
    }
    everything = Scene(
        64,
        (0.6,) * 4,
        0.6,
        0.5,
        text_deviation=0.5,
        draws=2,
        cut=0.1,
        unmarked=0.1,
        failures=0.005,
        interaction=0.5,
        groups=40,
        group_interaction=0.5,
    )
    return scenes | {f"all at once, n = {n}": everything.at(n) for n in (20, 64, 400)}


def text_scenes() -> dict[str, Scene]:
    """What a tone does depends on its text: skewed effects without a mean, and texts that break the answer."""
    scenes = {}
    for texts, n in ((8, 64), (8, 1319), (24, 1319), (64, 96), (64, 1319), (ONE_EACH, 24), (ONE_EACH, 96)):
        whose = "a text a question" if texts == ONE_EACH else f"{texts} texts"
        scenes[f"skewed, {whose}, n = {n}"] = Scene(n, mixture=SKEWED, texts=texts)
        for one_in in (4, 8):
            scenes[f"1 text in {one_in} breaks, {whose}, n = {n}"] = Scene(
                n, (0.9,) * 4, 0.9, 0.9, mixture=((1 - 1 / one_in, 0.0), (1 / one_in, -0.8)), texts=texts
            )
    return scenes | {
        "skewed, 64 texts and 24 of the filler, n = 1319": Scene(1319, mixture=SKEWED, texts=64, filler_texts=24),
        "skewed, 64 texts, control alone, n = 400": Scene(400, filler=None, mixture=SKEWED, texts=64),
        "skewed, 64 texts, 4 draws, n = 128": Scene(128, mixture=SKEWED, texts=64, draws=4),
        "skewed, a text a question, templates, n = 200": Scene(
            200, mixture=SKEWED, texts=ONE_EACH, groups=20, group_interaction=0.5
        ),
    }


def selected_scenes() -> dict[str, Scene]:
    """The outcome decides which trajectories there are, or which questions a row is about."""
    return {
        f"wrong answers of one tone are absent ({share:g}), {texts} texts, n = {n}": Scene(
            n, texts=texts, absent=share, text_deviation=deviation
        )
        for share in (0.1, 0.5, 1.0)
        for texts, deviation, n in ((8, 0.3, 200), (64, 0.3, 400), (ONE_EACH, 0.0, 96))
    } | {
        f"tones only lengthen answers ({share:g}), {texts} texts, n = {n}": Scene(n, texts=texts, lengthened=share)
        for share in (0.2, 0.6)
        for texts, n in ((8, 200), (64, 400), (ONE_EACH, 96))
    }


def dependent_scenes() -> dict[str, Scene]:
    """No tone differs; questions, answers or failures depend on each other or on the answer."""
    scenes: dict[str, Scene] = {}
    for texts in (1, 64, ONE_EACH):
        whose = "a text a question" if texts == ONE_EACH else f"{texts} text{'s' if texts > 1 else ''}"
        deviation = 0.0 if texts == 1 else 0.3
        scenes |= {
            f"each question under 8 ids, {whose}": Scene(
                192, texts=texts, text_deviation=deviation, copies=8, interaction=1.0
            ),
            f"one question in 10 is informative, {whose}": Scene(400, texts=texts, informative=0.1),
            f"long answers time out (0.2), {whose}": Scene(192, texts=texts, text_deviation=deviation, timeouts=0.2),
            f"answers correlate in batches of 4, {whose}": Scene(192, texts=texts, text_deviation=deviation, batch=4),
            f"texts go with topics, {whose}": Scene(192, texts=texts, text_deviation=deviation, topics=4),
        }
    return scenes


@dataclass(frozen=True)
class Stopping:
    """A run that goes on until something is decided.

    Attributes:
        scene: at the last size.
        sizes: numbers of questions after which it is looked at.
        weights: registered for the sizes; one that is missing was not.
    """

    scene: Scene
    sizes: tuple[int, ...]
    weights: dict[int, float]


def stopping_rules() -> dict[str, Stopping]:
    """Runs that stop as soon as something is decided; no tone differs."""
    four, nine = (64, 128, 256, 512), tuple(64 * number for number in range(1, 10))
    rules = {}
    for texts, deviation in ((1, 0.0), (64, 0.3), (ONE_EACH, 0.3)):
        whose = "a text a question" if texts == ONE_EACH else f"{texts} text{'s' if texts > 1 else ''}"
        for sizes in (four, nine):
            scene = Scene(sizes[-1], texts=texts, text_deviation=deviation)
            name = f"{len(sizes)} looks, {whose}"
            rules[f"{name}, equal weights"] = Stopping(scene, sizes, dict.fromkeys(sizes, 1 / len(sizes)))
            rules[f"{name}, the first one registered"] = Stopping(scene, sizes, {sizes[0]: 1.0})
        scene = Scene(384, texts=texts, text_deviation=deviation)
        rules[f"2 looks, {whose}, weights 0.2 and 0.8"] = Stopping(scene, (96, 384), {96: 0.2, 384: 0.8})
    return rules


def planted_scenes() -> dict[str, tuple[Scene, str]]:
    """A difference of 10 points, and the comparison that has to show it."""
    half = (0.45,) * 4 + (0.55,) * 4
    one = (0.6, *(0.5,) * 7)
    return {
        "10 points in one of 8 tones, a text a question, n = 672": (
            Scene(672, one, texts=ONE_EACH, text_deviation=0.3, difficulty=1.5),
            "tone0-filler",
        ),
        "10 points between valences, a text a question, n = 120": (
            Scene(120, half, texts=ONE_EACH, text_deviation=0.3, difficulty=1.5),
            "negative-positive",
        ),
        "10 points between valences, 64 texts, n = 160": (
            Scene(160, half, texts=64, text_deviation=0.3, difficulty=1.5),
            "negative-positive",
        ),
    }


def asked_scenes() -> dict[str, Scene]:
    """The filler is asked three times as often, and no tone differs from it; neighbours have worse data."""
    return {
        "filler 3 times, a text each, n = 432": Scene(432, (0.5,) * 8, texts=ONE_EACH, asks=3),
        "filler 3 times, texts differ by 0.3, n = 480": Scene(
            480, (0.5,) * 8, texts=ONE_EACH, text_deviation=0.3, asks=3
        ),
        "filler 3 times, 64 texts that differ by 0.5, n = 64": Scene(64, texts=64, text_deviation=0.5, asks=3),
        "filler 3 times, 24 texts that differ by 0.5, n = 400": Scene(400, texts=24, text_deviation=0.5, asks=3),
        "filler twice, 8 texts, n = 64": Scene(64, text_deviation=0.5, asks=2),
        "filler 3 times, 2 draws, failures, groups, n = 128": Scene(
            128, texts=64, text_deviation=0.3, draws=2, failures=0.02, groups=40, group_interaction=0.5, asks=3
        ),
        "filler 3 times, one tone's wrong answers absent, n = 200": Scene(
            200, texts=64, text_deviation=0.3, asks=3, absent=0.5
        ),
        "filler 3 times, skewed tones, 64 texts, n = 200": Scene(200, mixture=SKEWED, texts=64, asks=3),
    }


def format_scenes() -> dict[str, tuple[Scene, bool]]:
    """Formats of the prompt beside tones, and whether every tone is within their noise or none is."""
    large = (0.5, 0.75, 0.45, 0.52)
    return {
        "formats do nothing, no tone does, n = 400": (Scene(400, formats=(0.5,) * 4, texts=64), False),
        "tones do as much as the largest format, n = 400": (
            Scene(400, (0.75, 0.25, 0.75, 0.25), formats=large, texts=64, text_deviation=0.3),
            False,
        ),
        "tones do as much as every format, one text, n = 64": (
            Scene(64, (0.7,) * 4, formats=(0.7,) * 8, texts=1),
            False,
        ),
        "a format does 25 points and no tone anything, n = 400": (
            Scene(400, formats=large, texts=ONE_EACH, difficulty=1.5),
            True,
        ),
    }


def format_rows(name: str, scene: Scene, within: bool, runs: int, seed: int) -> list[Row]:
    """How often a tone is called within format noise: any where none is, or one where all are."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        tones = format_noise(simulate(scene, generator)).query("kind == 'tone'")["within"].astype(bool)
        found.append(tones.mean() if within else float(tones.any()))
    share = float(np.mean(found))
    if within:
        return [Row("told", "within format noise", name, runs, share, least(runs))]
    return [Row("false", "within format noise", name, runs, share, most(runs))]


def margin_scenes() -> dict[str, Scene]:
    """Every tone differs from its reference by the margin exactly: none is equivalent."""
    low, high = (0.5,) * 4, (0.6,) * 4
    return {
        "at the margin, 8 texts, n = 64": Scene(64, low, 0.6, 0.6),
        "at the margin, 8 texts, n = 400": Scene(400, high, 0.5, 0.5),
        "at the margin, 8 texts, n = 1319": Scene(1319, low, 0.6, 0.6),
        "at the margin, texts differ by 0.3, n = 1319": Scene(1319, low, 0.6, 0.6, text_deviation=0.3),
        "at the margin, one tone, n = 1319": Scene(1319, (0.6,), 0.5, 0.5, text_deviation=0.3, difficulty=2.0),
        "at the margin, one tone of one text, n = 400": Scene(400, (0.6,), None, texts=1),
        "at the margin, one text, n = 1319": Scene(1319, high, 0.5, 0.5, texts=1),
        "at the margin near the ceiling, n = 64": Scene(64, (0.895,) * 4, 0.995, 0.995),
        "at the margin near the ceiling, one text, n = 64": Scene(64, (0.895,), 0.995, 0.995, texts=1),
        "at the margin near the floor, n = 200": Scene(200, (0.105,), 0.005, 0.005),
        "at the margin, 4 draws, n = 400": Scene(400, low, 0.6, 0.6, draws=4, difficulty=3.0),
    }


@dataclass
class Tally:
    """What one scene showed in all of its runs.

    Attributes:
        runs: how many there were.
        false: kind of sentence → runs with a false one; `shape` counts the table of characteristics.
        said: kind of sentence → runs with any.
        intervals: of primary and planned comparisons.
    """

    runs: int = 0
    false: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    intervals: Intervals = field(default_factory=Intervals)

    def worst(self) -> float:
        """The largest share of runs in which one kind of sentence is false."""
        return max((count / self.runs for count in self.false.values()), default=0.0)


def rows(name: str, scene: Scene, runs: int, seed: int) -> list[Row]:
    """What a scene showed: a row for each kind of sentence that its runs hold, and one for the intervals.

    What answers of one batch share is beyond every verdict, as docs/verdicts.md says, so these rows have no limit.
    """
    found = tally_rows(name, run_scene(scene, runs, seed), runs)
    if not scene.batch:
        return found
    return [Row("described", f"{row.what} {row.kind}", name, row.runs, row.share) for row in found]


def tally_rows(name: str, tally: Tally, runs: int) -> list[Row]:
    """A row for each kind of sentence, and one for the intervals."""
    limit = most(runs)
    kinds = sorted({kind for kind in tally.said if not kind.endswith(UNDECIDED)} | set(tally.false) | {"shape"})
    found = [Row("false", kind, name, runs, tally.false[kind] / runs, limit) for kind in kinds]
    if tally.intervals.widths:
        found.append(tally.intervals.row("primary comparisons", name, least(runs, COVERAGE)))
    return found


def run_scene(scene: Scene, runs: int, seed: int) -> Tally:
    """Simulate, analyse and read the statements, `runs` times."""
    generator = np.random.default_rng(seed)
    tally = Tally(runs)
    for _ in range(runs):
        table = simulate(scene, generator)
        said, false = judge(scene, table, paired_tests(table, MARGIN), tally)
        if any(row["p_holm"] < LEVEL and not _unlike(scene, row) for row in characteristics(table).to_dict("records")):
            false.add("shape")
        tally.said.update(said)
        tally.false.update(false)
    return tally


def judge(scene: Scene, table: pd.DataFrame, tests: pd.DataFrame, tally: Tally) -> tuple[set[str], set[str]]:
    """The kinds of sentences that a run holds, and those of which one is false; intervals are counted."""
    said, false = set(), set()
    rows = tests[tests["measure"] == "correct"].to_dict(orient="records")
    for statement, row in zip(comparisons(tests, MARGIN), rows, strict=True):
        truth = true_difference(scene, table, row)
        kind = f"{row['family']} {statement.verdict}"
        said.add(kind)
        if is_false(statement.verdict, row["difference"], truth):
            false.add(kind)
        if row["family"] != "secondary" and statement.low is not None and statement.high is not None:
            tally.intervals.add(statement.low, statement.high, truth)
    for row in tests[tests["measure"] == "untruncated"].to_dict(orient="records"):
        # Its truth is that of all questions: what the outcome selects is no difference of variants.
        if is_false(row["verdict"], row["difference"], scene.truth(row["variant"], row["reference"])):
            false.add(f"untruncated {row['verdict']}")
    return said, false


def true_difference(scene: Scene, table: pd.DataFrame, row: dict[Hashable, Any]) -> float:
    """The true difference of a row: of the texts that were drawn, or over all that could have been."""
    here = table.attrs["here"]
    known = here if row["scope"] == "texts" else {name: scene.strict(name) for name in here}
    sides = []
    for side in (row["variant"], row["reference"]):
        members = [side] if side in known else [name for name, valence in scene.valences.items() if valence == side]
        sides.append(float(np.mean([known[name] for name in members])))
    return sides[0] - sides[1]


def stopping_rows(name: str, rule: Stopping, runs: int, seed: int) -> list[Row]:
    """How often the run stops with a false sentence."""
    return tally_rows(name, run_stopping(rule, runs, seed), runs)


def run_stopping(rule: Stopping, runs: int, seed: int) -> Tally:
    """Look at each run until a planned or primary comparison is decided, `runs` times."""
    generator = np.random.default_rng(seed)
    tally = Tally(runs)
    for _ in range(runs):
        table = simulate(rule.scene, generator)
        for size in rule.sizes:
            seen = table[table["sample_id"] < size]
            said, false = judge(rule.scene, seen, paired_tests(seen, MARGIN, weight=rule.weights.get(size)), tally)
            decided = {kind for kind in said if not kind.startswith("secondary") and not kind.endswith(UNDECIDED)}
            if decided or size == rule.sizes[-1]:
                tally.said.update(said)
                tally.false.update(false)
                break
    return tally


def planted_rows(name: str, scene: Scene, comparison: str, runs: int, seed: int) -> list[Row]:
    """How often the planted difference is shown."""
    return [Row("told", "different", name, runs, share_shown(scene, comparison, runs, seed), least(runs))]


def default_rows(effect: float, runs: int, seed: int) -> list[Row]:
    """How often each planned contrast of config/config.yaml has each verdict, where both differ by the effect.

    There are 64 questions, each with its own text, of which a third is solved. Six negative tones are below six positive
    ones by the effect, and the hint is below the filler. Many runs at once, through the estimates and verdicts alone.
    """
    questions, solved, deviation, difficulty = 64, 1 / 3, 0.3, 1.0
    generator = np.random.default_rng(seed)
    hard = generator.normal(0, difficulty, (runs, 1, questions))

    def solves(accuracy: float, variants: int) -> Floats:
        level = centre_of(accuracy, math.hypot(deviation, difficulty)) + hard
        level = level + generator.normal(0, deviation, (runs, variants, questions))
        shares: Floats = (generator.random(level.shape) < expit(level)).mean(axis=1)
        return shares

    contrasts = {
        "negative-positive": solves(solved - effect / 2, 6) - solves(solved + effect / 2, 6),
        "wrong_hint-filler": solves(solved - effect, 1) - solves(solved, 1),
    }
    estimates = [difference(each, None, None, MARGIN) for each in contrasts.values()]
    p, p_equivalent = (
        np.apply_along_axis(holm, 0, np.array([getattr(each, name) for each in estimates]))
        for name in ("p", "p_equivalent")
    )
    rows = []
    for place, contrast in enumerate(contrasts):
        pairs = zip(p[place], p_equivalent[place], strict=True)
        said = Counter(str(verdict(one, other, Scope.TONE, True)) for one, other in pairs)
        for kind, count in sorted(said.items()):
            world = f"default run, {100 * effect:g} points: {contrast}"
            if kind in DIFFERENT and not effect:
                rows.append(Row("false", kind, world, runs, count / runs, most(runs)))
            else:
                rows.append(Row("described", kind, world, runs, count / runs))
    return rows


def share_shown(scene: Scene, comparison: str, runs: int, seed: int) -> float:
    """Share of runs in which a comparison, `VARIANT-REFERENCE`, is called different."""
    generator = np.random.default_rng(seed)
    shown = 0
    for _ in range(runs):
        said = {one.about: one.verdict for one in comparisons(paired_tests(simulate(scene, generator), MARGIN), MARGIN)}
        shown += said[f"accuracy:{comparison}"] in DIFFERENT
    return shown / runs


def noise_scenes() -> dict[str, Scene]:
    """Designs whose own noise says what they can show."""
    return {
        "24 texts, n = 384": Scene(384, texts=24, text_deviation=0.3),
        "a text a question, n = 96": Scene(96, texts=ONE_EACH, text_deviation=0.3, difficulty=1.5),
        "one text, n = 200": Scene(200, texts=1),
        "24 texts, 20 templates, n = 384": Scene(384, texts=24, groups=20, group_interaction=0.3),
    }


def noise_rows(name: str, scene: Scene, runs: int, seed: int) -> list[Row]:
    """How often a difference is shown that is as large as the noise of an experiment without one says."""
    generator = np.random.default_rng(seed)
    shown = 0
    for _ in range(runs):
        (limit,) = own_noise(paired_tests(simulate(scene, generator), MARGIN, contrasts=[]))
        assert limit.estimate is not None
        planted = replace(scene, tones=(scene.tones[0] + limit.estimate, *scene.tones[1:]))
        tests = paired_tests(simulate(planted, generator), MARGIN, contrasts=[])
        shown += comparisons(tests, MARGIN)[0].verdict in DIFFERENT
    return [Row("told", "different, by its own noise", name, runs, shown / runs, least(runs))]


def _unlike(scene: Scene, row: dict[Hashable, Any]) -> bool:
    """Whether a row of the characteristics compares what truly differs: cut-off completions, lengths of these texts."""
    if row["measure"] != "truncated":
        # Each text has a length of its own, so that those of two variants differ in their mean.
        return row["measure"] == "completion_tokens" and row["scope"] == "texts" and bool(scene.text_deviation)
    return bool(scene.lengthened) or (row["reference"] == "control" and scene.cut != scene.control_cut)


def is_false(verdict: str, estimate: float, truth: float) -> bool:
    """Whether a verdict contradicts the truth; `undecided` never does."""
    if verdict in DIFFERENT:
        return abs(truth) < 1e-9 or estimate * truth < 0
    return verdict in EQUIVALENT and abs(truth) >= MARGIN - 1e-9


@dataclass(frozen=True)
class PowerCheck:
    """A stated detectable difference, and how often a difference of that size is called different."""

    design: PowerDesign
    deviation: float
    accuracy: float
    difficulty: float
    detectable: float | None
    seen: float | None


DESIGNS = (
    (PowerDesign(64, 1, 8, 8, 4), 0.0),
    (PowerDesign(128, 1, 64, 64, 4), 0.3),
    (PowerDesign(400, 1, 64, 64, 4), 0.0),
    (PowerDesign(1319, 1, 64, 64, 8), 0.0),
    (PowerDesign(1319, 1, 64, 64, 8), 0.3),
    (PowerDesign(672, 1, 672, 672, 8), 0.3),
    (PowerDesign(64, 1, 1, 1, 3), 0.0),
    (PowerDesign(400, 1, 1, 1, 3), 0.0),
    (PowerDesign(64, 4, 64, 64, 4), 0.3),
)


def power_checks(runs: int, seed: int, designs: Iterable[tuple[PowerDesign, float]] = DESIGNS) -> list[PowerCheck]:
    """Plant the stated difference in one tone, by the pipeline's own way, upwards and downwards, hard and easy."""
    found = []
    for design, deviation in designs:
        detectable = Simulation(design, deviation).detectable()
        for accuracy, difficulty in ((ACCURACY, 0.0), (ACCURACY, 1.5), (0.7, 1.0)):
            seen = None
            if detectable is not None:
                one = accuracy - detectable if accuracy > ACCURACY else accuracy + detectable
                tones = (one, *(accuracy,) * (design.tests - 1))
                scene = Scene(
                    design.questions,
                    tones,
                    accuracy,
                    accuracy,
                    texts=design.texts,
                    text_deviation=deviation,
                    difficulty=difficulty,
                    draws=design.draws,
                )
                seen = share_seen(scene, runs, seed)
            found.append(PowerCheck(design, deviation, accuracy, difficulty, detectable, seen))
    return found


def share_seen(scene: Scene, runs: int, seed: int) -> float:
    """Share of runs in which the first tone is called different from the primary reference."""
    generator = np.random.default_rng(seed)
    seen = 0
    for _ in range(runs):
        tests = paired_tests(simulate(scene, generator), MARGIN, contrasts=[])
        seen += comparisons(tests, MARGIN)[0].verdict in DIFFERENT
    return seen / runs


def power_rows(design: PowerDesign, deviation: float, runs: int, seed: int) -> list[Row]:
    """A row for each accuracy and difficulty at which the stated difference was planted; none if there is none."""
    return [
        Row(
            "told",
            "different",
            f"{check.design}, texts {check.deviation:g}, accuracy {check.accuracy:g}, difficulty {check.difficulty:g}, "
            f"{check.detectable} planted",
            runs,
            check.seen,
            least(runs),
        )
        for check in power_checks(runs, seed, [(design, deviation)])
        if check.seen is not None
    ]
