"""Tables of trajectories with a known truth.

A question has a difficulty and each text of a variant a deviation, both normal in logits. A variant is given by the
accuracy that it has over all questions and texts, so the true difference of two variants is exactly that of their
accuracies. All other columns are drawn alike for every variant but what a scene says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import expit

from emoprobe.analysis.power import NODES, WEIGHTS, centre_of
from emoprobe.config.section import format_name, is_format
from emoprobe.conversations.variants import text_shift
from emoprobe.results.tables import completed


@dataclass(frozen=True)
class Scene:
    """What is planted.

    Attributes:
        questions: how many.
        tones: accuracy of each tone, graded leniently and uncut.
        filler: accuracy of the filler; None: there is no filler.
        control: accuracy of control.
        texts: of each tone, at most one a question; `filler_texts` of the filler.
        text_deviation: of texts of one variant, in logits.
        difficulty: deviation of questions, in logits.
        interaction: deviation of each question and variant, in logits: a tone that helps here and harms there.
        groups: how many groups, such as templates, the questions are dealt to at random; None: each stands for itself.
        group_interaction: deviation of each group and variant, in logits: a tone that helps with one template alone.
        draws: of each question.
        cut: share of completions cut off of every text; `control_cut` of control. They are strictly wrong.
        unmarked: share of right answers with no marker, which the strict grade does not count.
        failures: share of requests that no server answered.
        mixture: kinds of texts of a tone, each with its probability and by how much it moves the accuracy.
        absent: share of the first tone's wrong trajectories that the folder lacks.
        lengthened: share of the tones' wrong answers that are cut off as well, as a tone makes answers longer.
        asks: of the filler, each with another of its texts.
        formats: accuracies of control's prompt in other formats.
        copies: under how many ids each question comes; copies with the same text get the same answer.
        informative: share of the questions whose answer is not the same whatever stands before them.
        timeouts: share of the tones' wrong answers that never come, as they are long.
        batch: questions that are answered together; 0: each alone. What a batch shares has the deviation of 0.7 logits.
        topics: topics of the questions, which go round as texts do; each tone helps with some and harms with others.
    """

    questions: int
    tones: tuple[float, ...] = (0.5,) * 4
    filler: float | None = 0.5
    control: float = 0.5
    texts: int = 8
    filler_texts: int | None = None
    text_deviation: float = 0.0
    difficulty: float = 1.0
    interaction: float = 0.0
    groups: int | None = None
    group_interaction: float = 0.0
    draws: int = 1
    cut: float = 0.0
    control_cut: float = 0.0
    unmarked: float = 0.0
    failures: float = 0.0
    mixture: tuple[tuple[float, float], ...] = ()
    absent: float = 0.0
    lengthened: float = 0.0
    asks: int = 1
    formats: tuple[float, ...] = ()
    copies: int = 1
    informative: float = 1.0
    timeouts: float = 0.0
    batch: int = 0
    topics: int = 0
    name: str = field(default="", compare=False)

    @property
    def accuracies(self) -> dict[str, float]:
        """Lenient accuracy of every variant."""
        found = {"control": self.control}
        if self.filler is not None:
            found["filler"] = self.filler
        found |= {f"tone{number}": accuracy for number, accuracy in enumerate(self.tones)}
        return found | {format_name(number): accuracy for number, accuracy in enumerate(self.formats, 1)}

    @property
    def valences(self) -> dict[str, str]:
        """The first half of the tones is negative, the second positive, where there are two or more."""
        half = len(self.tones) // 2
        return {f"tone{number}": "negative" if number < half else "positive" for number in range(2 * half)}

    def texts_of(self, variant: str) -> int:
        """How many texts a variant has; 0: none."""
        if variant == "control" or is_format(variant):
            return 0
        texts = self.filler_texts or self.texts if variant == "filler" else self.texts
        # Asks are as far apart as the power of two allows that is at least their number (`text_shift`).
        return min(texts, self.questions << (self.asks_of(variant) - 1).bit_length())

    def asks_of(self, variant: str) -> int:
        """How many times a variant is asked each question."""
        return self.asks if variant == "filler" else 1

    def strict(self, variant: str) -> float:
        """The true strict accuracy of a variant."""
        moved = sum(chance * points for chance, points in self.mixture) if variant.startswith("tone") else 0.0
        return (self.accuracies[variant] + moved) * self.counted(variant)

    def counted(self, variant: str) -> float:
        """Share of right answers that the strict grade counts."""
        cut = self.control_cut if variant == "control" else self.cut
        return (1 - cut) * (1 - self.unmarked)

    def truth(self, variant: str, other: str) -> float:
        """The true difference of strict accuracies."""
        return self.strict(variant) - self.strict(other)

    def at(self, questions: int) -> Scene:
        """The same with another number of questions."""
        return replace(self, questions=questions)


def simulate(scene: Scene, generator: np.random.Generator) -> pd.DataFrame:
    """A table of trajectories with the columns that the analysis of behaviour reads.

    Its `attrs` have the true strict accuracy of each variant with the texts that were drawn, under `here`.
    """
    index = np.arange(scene.questions)
    # Copies are spread over the permutation, as data sets hold them.
    asked = index % math.ceil(scene.questions / scene.copies)
    difficulty = generator.normal(0, scene.difficulty, scene.questions)[asked]
    if scene.informative < 1:
        settled = generator.random(scene.questions) >= scene.informative
        difficulty = np.where(settled, generator.choice([-20.0, 20.0], scene.questions), difficulty)
    group = index if scene.groups is None else generator.integers(0, scene.groups, scene.questions)
    blocks, here = [], {}
    for variant, accuracy in scene.accuracies.items():
        texts = scene.texts_of(variant)
        several = texts > 1
        deviation = scene.text_deviation if several else 0.0
        own = generator.normal(0, 1, max(1, texts))
        shifts = [text_shift(max(1, texts), ask) for ask in range(scene.asks_of(variant))]
        # The text of each question and ask.
        text = (index[:, None] + np.array(shifts)) % max(1, texts)
        shape = (scene.questions, scene.draws * len(shifts))
        spread = math.sqrt(scene.difficulty**2 + scene.interaction**2 + scene.group_interaction**2 + deviation**2)
        level = centre_of(accuracy, spread) + difficulty
        level = level + generator.normal(0, scene.interaction, scene.questions)[asked] if scene.interaction else level
        if scene.batch:
            level = level + generator.normal(0, 0.7, scene.questions)[index // scene.batch]
        if scene.topics:
            level = level + generator.permutation(np.linspace(-1, 1, scene.topics))[index % scene.topics]
        if scene.group_interaction:
            level = level + generator.normal(0, scene.group_interaction, scene.groups or scene.questions)[group]
        level = level[:, None] + deviation * own[text]
        chance = expit(level)
        of_text = _accuracies(centre_of(accuracy, spread) + deviation * own, spread**2 - deviation**2)
        if scene.mixture and variant.startswith("tone"):
            chances, points = np.array(scene.mixture).T
            moved = generator.choice(points, max(1, texts), p=chances)
            share = np.where(moved > 0, moved / (1 - accuracy), moved / accuracy)
            chance, of_text = _moved(chance, share[text]), _moved(of_text, share)
        here[variant] = float(of_text[text].mean()) * scene.counted(variant)
        answer = generator.random((scene.questions, max(1, texts), scene.draws)) if scene.copies > 1 else None
        chance = np.repeat(chance, scene.draws, axis=1)
        right = (generator.random(shape) if answer is None else answer[asked[:, None], text].reshape(shape)) < chance
        cut = generator.random(shape) < (scene.control_cut if variant == "control" else scene.cut)
        if scene.lengthened and variant.startswith("tone"):
            cut = cut | (~right & (generator.random(shape) < scene.lengthened))
        unmarked = generator.random(shape) < scene.unmarked
        failed = generator.random(shape) < scene.failures
        if scene.timeouts and variant.startswith("tone"):
            failed = failed | (~right & (generator.random(shape) < scene.timeouts))
        # A text without deviation has the mean length of the others: E exp(dz) = exp(d²/2).
        own_length = deviation * own[text] if several else np.full(text.shape, scene.text_deviation**2 / 2)
        own_length = np.repeat(own_length, scene.draws, axis=1)
        length = np.exp(4 + 0.3 * difficulty[:, None] + own_length + generator.normal(0, 0.3, shape))
        blocks.append(
            {
                "variant": np.full(shape, variant),
                "sample_id": np.broadcast_to(index[:, None], shape),
                "question": np.broadcast_to(asked[:, None], shape),
                "group": np.broadcast_to(group[:, None] if scene.groups else np.nan, shape),
                "asks": np.full(shape, len(shifts)),
                "draw": np.broadcast_to(np.arange(1, shape[1] + 1), shape),
                "paraphrase": np.repeat(text, scene.draws, axis=1) if texts else np.full(shape, np.nan),
                "correct": np.where(failed, np.nan, right & ~cut & ~unmarked),
                "lenient": np.where(failed, np.nan, right),
                "truncated": np.where(failed, np.nan, cut),
                "compliant": np.where(failed, np.nan, ~unmarked),
                "completion_tokens": np.where(failed, np.nan, length),
                "steps": np.where(failed, np.nan, generator.poisson(4, shape)),
                "polarity": np.where(failed, np.nan, generator.normal(0, 0.2, shape) * (generator.random(shape) < 0.5)),
                "subjectivity": np.where(failed, np.nan, generator.random(shape)),
                "extraction": np.where(failed, "", np.where(unmarked, "last_number", "marker")),
                "failure": np.where(failed, "no answer", ""),
            }
        )
        if scene.absent and variant == "tone0":
            kept = right | (generator.random(shape) >= scene.absent)
            blocks[-1] = {name: values[kept] for name, values in blocks[-1].items()}
    columns = {name: np.concatenate([block[name].ravel() for block in blocks]) for name in blocks[0]}
    table = pd.DataFrame(columns)
    table.attrs["here"] = here
    table["valence"] = table["variant"].map(scene.valences).astype("string")
    table["question"] = table["question"].map("What is {}?".format).astype("string")
    for name in ("extraction", "failure"):
        table[name] = table[name].astype("string").mask(table[name] == "")
    table["group"] = table["group"].map("template {:.0f}".format, na_action="ignore").astype("string")
    for name in ("correct", "lenient", "truncated", "compliant"):
        table[name] = table[name].astype("boolean")
    return completed(table, "trajectories")


def _accuracies(centres: np.ndarray, variance: float) -> np.ndarray:
    """The mean accuracy at each centre over normal deviations, both in logits, as `marginal` of one."""
    deviations = math.sqrt(max(0.0, variance)) * NODES
    shares: np.ndarray = expit(centres[:, None] + deviations) @ WEIGHTS / WEIGHTS.sum()
    return shares


def _moved(chance: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Chances of a right answer where a share of the wrong ones becomes right (above 0), or of the right ones wrong."""
    return np.where(share > 0, chance + share * (1 - chance), chance * (1 + share))
