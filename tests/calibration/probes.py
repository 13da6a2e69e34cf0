"""How often the probes are wrong where nothing is there, and right where something is.

Each world plants what activations and correctness hold. Its runs end in the same tests as an experiment's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.activation_source import ActivationSource, Load
from emoprobe.analysis.probes.all_probes import run_probes
from emoprobe.config.experiment import Config
from emoprobe.conversations.variants import variant_texts
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Intervals, Row
from tests.emoprobe.analysis import synthetic

LAYERS, D = 3, 12
WIDE = 512  # more than 24 questions have rows
POSITIONS = ("last_prompt", "response_mean")


@dataclass
class Draw:
    """One simulated experiment: its config and table, and what is added to each row's activations, (n, D).

    `directions` begins alike in all runs of a world, so that their probes have one true area, which intervals cover.
    """

    generator: np.random.Generator
    settings: Config
    table: pd.DataFrame
    directions: np.random.Generator
    planted: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def direction(self) -> np.ndarray:
        """A random direction of length √D, so that its entries are about 1 and an effect has one size in all runs."""
        found = self.directions.normal(size=D)
        scaled: np.ndarray = found * np.sqrt(D) / np.linalg.norm(found)
        return scaled

    def codes(self, *columns: str) -> np.ndarray:
        """A code for each row, equal where all columns are."""
        found: np.ndarray = self.table.groupby(list(columns), sort=False, dropna=False).ngroup().to_numpy()
        return found

    def by(self, *columns: str, scale: float = 1.0) -> np.ndarray:
        """A random vector for each value of some columns, (n, D)."""
        codes = self.codes(*columns)
        found: np.ndarray = scale * self.generator.normal(size=(codes.max() + 1, D))[codes]
        return found

    def level(self, *columns: str) -> np.ndarray:
        """A random number for each value of some columns, (n)."""
        codes = self.codes(*columns)
        found: np.ndarray = self.generator.normal(size=codes.max() + 1)[codes]
        return found

    def standard(self, values: np.ndarray) -> np.ndarray:
        """Values of mean 0 and variance 1."""
        found: np.ndarray = (values - values.mean()) / max(values.std(), 1e-12)
        return found

    def negative(self) -> np.ndarray:
        """Which rows are those of negative variants."""
        found: np.ndarray = (self.table["valence"] == "negative").fillna(False).to_numpy(dtype=bool)
        return found

    def ask(self) -> None:
        """Write a question for each sample, of one to five numbers with one to four digits."""
        questions = {}
        for sample in self.table["sample_id"].unique():
            numbers = self.generator.integers(1, 10 ** self.generator.integers(1, 5), self.generator.integers(1, 6))
            filling = " ".join(["so"] * int(self.generator.integers(0, 20)))
            questions[sample] = f"Add up {filling} {' + '.join(map(str, numbers))}"
        self.table["question"] = self.table["sample_id"].map(questions).astype("string")

    def prompt(self) -> None:
        """Count the tokens of each prompt: more than one a word, by the question and by the text."""
        texts = {name: variant_texts(self.settings, name) for name in self.settings.variants}
        own = [
            "" if pd.isna(text) else texts[variant][int(text)]
            for variant, text in zip(self.table["variant"], self.table["paraphrase"], strict=True)
        ]
        words = np.array([len(text.split()) for text in own])
        marks = np.array([sum(mark in "!,." for mark in text) for text in own])
        split = np.array([len(text) % 3 for text in own])  # words that are more than one token
        asked = self.table["question"].str.len().to_numpy(dtype=int) // 6
        self.words, self.marks = words, marks
        self.table["prompt_tokens"] = pd.array(40 + asked + words + marks + split, dtype="Int64")

    def capture(self, *columns: str) -> None:
        """Capture the rows of each value of some columns together, the first column first, else in a random order."""
        keys = self.generator.permutation(len(self.table))
        order = np.lexsort([keys, *(self.table[name].to_numpy(dtype=str) for name in reversed(columns))])
        self.place = np.empty(len(order), dtype=int)
        self.place[order] = np.arange(len(order))
        self.table["started"] = pd.array([f"2026-01-01T{place:08d}" for place in self.place], dtype="string")

    def lengthen(self, more: int, marks: int = 0) -> None:
        """Write texts of the negative variants that have more words, or punctuation marks."""
        texts = {
            name: _texts(self.generator, name, *((more, marks) if valence == "negative" else ()))
            for name, valence in synthetic.BALANCED.items()
            if name != "control"
        }
        probes = self.settings.probes
        self.settings = synthetic.config(
            synthetic.BALANCED, texts, targets=probes.targets, permutations=probes.permutations
        )
        self.prompt()

    def keep(self, there: np.ndarray) -> None:
        """Leave out the rows that are not there, (n)."""
        self.table, self.planted = self.table[there].reset_index(drop=True), self.planted[there]

    def answer(self, logit: np.ndarray) -> None:
        """Draw correctness."""
        chance = 1 / (1 + np.exp(-logit))
        self.table["correct"] = pd.Series(self.generator.random(len(chance)) < chance).astype("boolean").to_numpy()


def start(
    generator: np.random.Generator,
    samples: int,
    draws: int,
    permutations: int,
    variants: dict[str, str | None] = synthetic.BALANCED,
) -> Draw:
    """Variants on some questions: lengths that differ by variant and question, few answers cut off.

    Tones have eight texts of 8 to 14 words and 1 to 6 punctuation marks. Questions differ in length and numbers. The
    captures of a question follow each other.
    """
    texts = {name: _texts(generator, name) for name in variants if name != "control"}
    settings = synthetic.config(variants, texts, targets=["valence", "correct"], permutations=permutations)
    once = synthetic.table(settings, samples, int(generator.integers(1 << 30)))
    table = pd.concat([once.assign(draw=draw) for draw in range(1, draws + 1)], ignore_index=True)
    draw = Draw(generator, settings, table, np.random.default_rng(samples))
    draw.ask()
    draw.prompt()
    draw.capture("sample_id")
    length = 3.4 + 0.3 * draw.level("sample_id") + 0.1 * draw.level("variant") + 0.3 * generator.normal(size=len(table))
    table["completion_tokens"] = pd.array(np.minimum(np.exp(length), 64).round().astype(int), dtype="Int64")
    table["truncated"] = (table["completion_tokens"] >= 64).astype("boolean")
    table["compliant"] = pd.array(generator.random(len(table)) < 0.9, dtype="boolean")
    table["completion"] = [" ".join(generator.choice(list("abcdefgh"), 6)) for _ in range(len(table))]
    draw.planted = np.zeros((len(table), D))
    draw.answer(0.8 * draw.level("sample_id"))
    return draw


def _texts(generator: np.random.Generator, name: str, more: int = 0, marks: int = 0) -> list[str]:
    """Eight texts of 8 to 14 words and 1 to 6 punctuation marks, and of so many more."""
    texts = []
    for number in range(8):
        words = ["word"] * (int(generator.integers(6, 13)) + more)
        for place in generator.choice(len(words), int(generator.integers(1, 5)) + marks):
            words[place] += "!"
        texts.append(" ".join([name, str(number) + ".", *words]))
    return texts


def nothing(draw: Draw) -> None:
    """Noise alone."""


def text_identity(draw: Draw) -> None:
    """Activations hold which text it was."""
    draw.planted += draw.by("variant", "paraphrase", scale=2.0)


def variant_identity(draw: Draw) -> None:
    """Activations hold which variant it was; accuracy differs by variant."""
    draw.planted += draw.by("variant", scale=2.0)
    draw.answer(0.8 * draw.level("sample_id") + 0.5 * draw.level("variant"))


def question_identity(draw: Draw) -> None:
    """Activations hold which question it was, and questions differ in difficulty."""
    draw.planted += draw.by("sample_id", scale=2.0)


def template(draw: Draw) -> None:
    """Questions of a template share activations and difficulty; templates have one to four questions."""
    number = int(draw.table["sample_id"].nunique())
    sizes = draw.generator.integers(1, 5, number)
    names = np.repeat(np.arange(number), sizes)[:number]
    of = dict(zip(draw.table["sample_id"].unique(), [f"t{name}" for name in names], strict=True))
    draw.table["group"] = draw.table["sample_id"].map(of).astype("string")
    draw.planted += draw.by("group", scale=2.0)
    draw.answer(1.5 * draw.level("group"))


def cut_off(draw: Draw) -> None:
    """Activations hold whether the answer was cut off; then it is mostly wrong."""
    lengths = draw.table["completion_tokens"].astype(float).to_numpy()
    limit = np.quantile(lengths, 0.7)
    draw.table["truncated"] = pd.array(lengths >= limit, dtype="boolean")
    draw.table["completion_tokens"] = pd.array(np.minimum(lengths, limit).round().astype(int), dtype="Int64")
    off = draw.table["truncated"].to_numpy(dtype=float)
    draw.planted += 2.0 * np.outer(off, draw.direction())
    draw.answer(0.7 - 3.0 * off + 0.5 * draw.level("sample_id"))


def length_only(draw: Draw) -> None:
    """Activations hold the length of the answer; long ones are wrong more often."""
    length = np.log(draw.table["completion_tokens"].astype(float).to_numpy())
    length = (length - length.mean()) / length.std()
    draw.planted += np.outer(length, draw.direction()) + 0.5 * np.outer(length**2, draw.direction())
    draw.answer(-1.0 * length + 0.5 * draw.level("sample_id"))


def everything(draw: Draw) -> None:
    """Texts, variants, templates, length and truncation at once."""
    template(draw)
    kept = draw.planted.copy()
    length = np.log(draw.table["completion_tokens"].astype(float).to_numpy())
    length = (length - length.mean()) / length.std()
    off = draw.table["truncated"].to_numpy(dtype=float)
    draw.planted = kept + draw.by("variant", scale=1.5) + draw.by("variant", "paraphrase", scale=1.0)
    draw.planted += np.outer(length, draw.direction()) + np.outer(off, draw.direction())
    draw.answer(0.8 * draw.level("group") - 0.8 * length - 1.0 * off + 0.4 * draw.level("variant"))


def valence_effect(draw: Draw) -> None:
    """Variants differ by half a standard deviation, and valences lie 3.5 of them apart along one direction."""
    draw.planted += draw.by("variant", scale=0.5)
    sign = draw.table["valence"].map({"negative": -1.0, "positive": 1.0}).astype(float).fillna(0.0).to_numpy()
    draw.planted += 0.5 * np.outer(sign, draw.direction())


def arousal_alone(draw: Draw) -> None:
    """Variants differ, and arousals lie 3.5 standard deviations apart along one direction; nothing of valence."""
    draw.planted += draw.by("variant", scale=0.5)
    sign = draw.table["variant"].map(synthetic.AROUSAL).map({"high": 1.0, "low": -1.0}).astype(float).fillna(0.0)
    draw.planted += 0.5 * np.outer(sign.to_numpy(), draw.direction())


def valence_and_arousal(draw: Draw) -> None:
    """Both, equally strong, along two directions."""
    arousal_alone(draw)
    valence_effect(draw)


def correct_effect(draw: Draw) -> None:
    """Activations hold length, and right answers lie 1.4 standard deviations from wrong ones along a direction."""
    length_only(draw)
    right = draw.table["correct"].to_numpy(dtype=float) - 0.5
    draw.planted += 0.4 * np.outer(right, draw.direction())


def prompt_length(draw: Draw) -> None:
    """Texts of negative variants are three words longer; activations hold the number of prompt tokens."""
    draw.lengthen(3)
    tokens = draw.table["prompt_tokens"].to_numpy(dtype=float)
    draw.planted += np.outer(tokens / 2, draw.direction())


def prompt_length_curved(draw: Draw) -> None:
    """Two words longer, held on a curve, with what else texts and variants hold."""
    draw.lengthen(2)
    tokens = draw.table["prompt_tokens"].to_numpy(dtype=float)
    draw.planted += np.outer(15 * np.log(tokens), draw.direction()) + np.outer((tokens / 20) ** 2, draw.direction())
    draw.planted += draw.by("variant", "paraphrase", scale=0.5) + draw.by("variant", scale=0.5)


def prompt_much_longer(draw: Draw) -> None:
    """Texts of negative variants are twelve words longer, so that hardly any has the length of a positive one."""
    draw.lengthen(12)
    draw.planted += np.outer(draw.words / 2, draw.direction())


def punctuation(draw: Draw) -> None:
    """Negative texts have two more exclamation marks; activations hold their number."""
    draw.lengthen(0, 2)
    draw.planted += np.outer(draw.marks / 1.5, draw.direction())


def drift(draw: Draw) -> None:
    """Activations drift with the order of capture, in which the tones of a question follow each other."""
    draw.capture("sample_id", "valence")
    draw.planted += 3 * np.outer(draw.standard(draw.place), draw.direction())


def drift_by_variant(draw: Draw) -> None:
    """The same, where each variant is captured as a whole, the negative ones first."""
    draw.capture("valence", "variant")
    draw.planted += 3 * np.outer(draw.standard(draw.place), draw.direction())


def question_length(draw: Draw) -> None:
    """Long questions are hard, and activations hold how long a question is; nothing of the answer."""
    length = draw.standard(np.log(draw.table["question"].str.len().to_numpy(dtype=float)))
    draw.planted += 2 * np.outer(length, draw.direction())
    draw.answer(-2.0 * length)


def question_numbers(draw: Draw) -> None:
    """Questions of many or large numbers are hard, and activations hold both; nothing of the answer."""
    numbers = draw.table["question"].str.findall(r"\d+")
    count = draw.standard(numbers.map(len).to_numpy(dtype=float))
    largest = draw.standard(numbers.map(lambda each: np.log10(max(map(int, each)))).to_numpy(dtype=float))
    draw.planted += 2 * np.outer(count, draw.direction()) + 2 * np.outer(largest, draw.direction())
    draw.answer(-1.0 * count - 1.0 * largest)


def long_prompts_fail(draw: Draw) -> None:
    """Activations hold how long a question is; three in ten questions, the longest, have no row of a negative variant."""
    length = draw.standard(draw.table["question"].str.len().to_numpy(dtype=float))
    draw.planted += 2 * np.outer(length, draw.direction())
    draw.keep(~(draw.negative() & (length > np.quantile(length, 0.7))))


def topic(draw: Draw) -> None:
    """Activations hold how difficult a question is, by what no baseline sees; nothing of the answer."""
    level = draw.level("sample_id")
    draw.planted += 2 * np.outer(level, draw.direction())
    draw.answer(1.5 * level + 0.7 * draw.level("variant"))


def valence_and_length(draw: Draw) -> None:
    """`valence_effect` where activations hold prompt tokens as well, of texts that are as long but for chance."""
    draw.planted += np.outer(draw.table["prompt_tokens"].to_numpy(dtype=float) / 2, draw.direction())
    valence_effect(draw)


def correct_and_question(draw: Draw) -> None:
    """`correct_effect` where long questions are hard and activations hold how long a question is."""
    length = draw.standard(np.log(draw.table["question"].str.len().to_numpy(dtype=float)))
    draw.planted += 2 * np.outer(length, draw.direction())
    draw.answer(-1.0 * length + 0.5 * draw.level("sample_id"))
    right = draw.table["correct"].to_numpy(dtype=float) - 0.5
    draw.planted += 0.4 * np.outer(right, draw.direction())


@dataclass(frozen=True)
class World:
    """What is planted, on how many questions, which sentences are true of it, and the draws of each question.

    Activations have `d` features, of which D hold what is planted. Where d exceeds the rows, probes are computed from
    inner products.

    `topic` is true at the level of questions alone, where nothing is claimed that it would make false.
    """

    plant: Callable[[Draw], None]
    samples: int
    effects: tuple[str, ...] = ()
    draws: int = 1
    open: tuple[str, ...] = ()
    aroused: bool = False
    d: int = D

    @property
    def name(self) -> str:
        """As it is reported."""
        name = f"{self.plant.__name__}, {self.samples} questions" + (f", {self.draws} draws" if self.draws > 1 else "")
        return name + (f", d = {self.d}" if self.d != D else "")


NULLS = (nothing, text_identity, variant_identity, question_identity, template, cut_off, length_only, everything)
CONFOUNDED = (
    prompt_length, prompt_length_curved, prompt_much_longer, punctuation, drift, drift_by_variant, question_length,
    question_numbers, long_prompts_fail,
)  # fmt: skip
BOTH = ("correct", "correct_within")
WORLDS = [
    *(World(plant, samples) for plant in NULLS for samples in (8, 24, 60)),
    *(World(plant, 200) for plant in (template, cut_off, length_only, everything)),
    *(World(plant, samples) for plant in CONFOUNDED for samples in (24, 60)),
    *(World(plant, 96) for plant in (prompt_length, question_length, question_numbers)),
    World(question_length, 32),
    *(World(topic, samples, open=("correct",), draws=draws) for samples, draws in ((60, 1), (24, 4))),
    World(length_only, 24, draws=4),
    *(World(plant, 24, d=WIDE) for plant in (nothing, text_identity, cut_off, prompt_length, drift, question_length)),
    World(valence_effect, 24, ("valence",), d=WIDE),
    World(valence_effect, 24, ("valence",)),
    World(valence_and_length, 60, ("valence",)),
    World(arousal_alone, 24, aroused=True),
    World(valence_and_arousal, 24, ("valence",), aroused=True),
    World(correct_effect, 60, BOTH),
    World(correct_effect, 32, BOTH),
    World(correct_effect, 32, BOTH, draws=3),
    World(correct_and_question, 60, BOTH),
]


def simulate(world: World, runs: int, seed: int = 0, permutations: int = 19) -> Iterator[dict[str, Any]]:
    """The tests of each run by target, and its cosines."""
    for run in range(runs):
        generator = np.random.default_rng([seed, world.samples, run])
        variants = synthetic.AROUSED if world.aroused else synthetic.BALANCED
        draw = start(generator, world.samples, world.draws, permutations, variants)
        world.plant(draw)
        noise = generator.normal(size=(len(POSITIONS), len(draw.table), LAYERS, world.d))
        planted = np.pad(draw.planted, ((0, 0), (0, world.d - D)))[:, None]
        # The signal fades over the layers, so that cells differ.
        block = {
            name: (noise[number] + planted * np.linspace(1.0, 0.3, LAYERS)[:, None]).astype(np.float32)
            for number, name in enumerate(POSITIONS)
        }
        n = len(draw.table)
        empty = {name: np.zeros(n, dtype=bool) for name in POSITIONS}
        source = ActivationSource(
            np.arange(n), list(range(LAYERS)), ["layer.output"], list(POSITIONS), world.d, _load(block), empty
        )
        found = run_probes(draw.table, source, draw.settings, transfers=False)
        cosines = pd.DataFrame(found.directions.cosines)
        yield {row["target"]: row for row in found.tests} | {"cosines": cosines[cosines["variant"] < cosines["other"]]}


def rows(world: World, runs: int) -> list[Row]:
    """A row for each target: how often it was found, where it should be and where not; coverage of intervals."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tests = list(simulate(world, runs))
    torch.set_num_threads(threads)
    found = []
    for target in ("valence", *BOTH):
        if target in world.open:
            continue
        share = float(np.mean([run[target]["verdict"] == "found" for run in tests]))
        if target in world.effects:
            found.append(Row("told", f"{target} found", world.name, runs, share, least(runs)))
        else:
            found.append(Row("false", f"{target} found", world.name, runs, share, most(runs)))
    for name in ("auroc", "added"):
        known = [run["correct"] for run in tests if np.isfinite(run["correct"].get(f"{name}_low", np.nan))]
        if known:
            # What probes of this size reach on average.
            truth = float(np.mean([row[name] for row in known]))
            intervals = Intervals()
            for row in known:
                intervals.add(row[f"{name}_low"], row[f"{name}_high"], truth)
            found.append(intervals.row(f"correct, {name}", world.name, least(len(known), COVERAGE)))
    if world.plant is nothing:
        cosines = pd.concat([run["cosines"] for run in tests]).dropna(subset=["low"])
        if len(cosines):
            intervals = Intervals()
            for low, high in cosines[["low", "high"]].to_numpy():
                intervals.add(low, high, 0.0)
            # Cosines of one run go together, so that the limit is that of the runs.
            found.append(intervals.row("cosines of directions", world.name, least(runs, COVERAGE)))
    return found


def _load(block: dict[str, np.ndarray]) -> Load:
    """Activations that are in memory, as a source gives them."""

    def load(begin: int, end: int, _hook_point: str) -> dict[str, np.ndarray]:
        return {name: values[:, begin:end] for name, values in block.items()}

    return load
