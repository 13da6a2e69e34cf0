"""What an experiment steers: its directions, the conditions that they are tried in, and the trajectories of each.

A condition is a folder: `{direction}/{operation}-{phase}/L{layers}/d{dose}`, such as `joy/add-all/L14/d0.4`; that
without an edit is `none`.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, cast

from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.science.steering import MIDDLE, NONE, Operation, Phase, layer_sets
from emoprobe.config.section import CONTROL
from emoprobe.conversations.samples import draw_id, sample_id
from emoprobe.conversations.variants import paraphrase_index, variant_texts
from emoprobe.results.layout import condition_folder

Family = Literal["tone", "probe", "file", "feature", "random", "shuffled", "orthogonal"]
# What is not made for itself but to be compared with.
CONTROLS = ("random", "shuffled", "orthogonal")
EDIT = r"(?:add|ablate)-(?:prompt|generation|all)/L\d+(?:\+\d+)*/d-?[0-9.]+"
_CONDITION = re.compile(
    r"(?P<direction>[^/]+)/(?P<operation>\w+)-(?P<phase>\w+)/L(?P<layers>[0-9+]+)/d(?P<dose>[-0-9.]+)"
)

_NAMED = re.compile(r"random-\d+|(?P<family>shuffled)-(?P<tone>.+)-\d+|(?P<other>probe|orthogonal)-(?P<of>.+)")


class UnknownConditionError(ValueError):
    """A folder that names no condition."""


@dataclass(frozen=True)
class ToneDirection:
    """A direction by its name; `tone` is the variant that it belongs to."""

    name: str
    family: Family
    tone: str | None = None


@dataclass(frozen=True)
class SteeringEdit:
    """An edit of the stream along a direction."""

    direction: str
    operation: Operation
    phase: Phase
    layers: tuple[int, ...]
    dose: float

    @property
    def folder(self) -> str:
        """The condition's folder."""
        return condition_folder(self.direction, self.operation, self.phase, self.layer_text, self.dose)

    @property
    def layer_text(self) -> str:
        """The layers as names of folders and tables have them, such as `10+12`."""
        return "+".join(map(str, self.layers))

    @classmethod
    def parse(cls, folder: str) -> SteeringEdit | None:
        """The edit of a condition's folder; None for the one without.

        Raises:
            UnknownConditionError: it is no such folder.
        """
        if folder == NONE:
            return None
        match = _CONDITION.fullmatch(folder)
        if match is None:
            raise UnknownConditionError(f"{folder} is no folder of a condition")
        operation, phase = cast(Operation, match["operation"]), cast(Phase, match["phase"])
        return cls(
            match["direction"], operation, phase, tuple(map(int, match["layers"].split("+"))), float(match["dose"])
        )


class SteeredPair(NamedTuple):
    """One steered trajectory: its condition's folder, its variant, and its own folder's name."""

    condition: str
    variant: str
    name: str


@dataclass(frozen=True)
class SteeringGrid:
    """The steered trajectories of an experiment.

    Args:
        config: the experiment.
        groups: the group of each captured question, null where it has none.
        n_layers: the depth of the model; None where it is not known and no layer is `middle`.
        questions: what each captured question asks, the same for copies; empty where that is not known.
    """

    config: Config
    groups: tuple[str | None, ...]
    n_layers: int | None
    questions: tuple[str, ...] = ()

    @property
    def tones(self) -> list[str]:
        """The variants that have a direction."""
        return tones_of(self.config)

    @property
    def reference(self) -> str:
        """The primary reference, which the tones are compared with."""
        return references_of(self.config.variants, self.config.analysis.references)[-1]

    @cached_property
    def halves(self) -> Halves:
        """Places of the questions that directions are fitted on, and of those that are steered, all of them."""
        return halves(self.groups, self.config.experiment.seed, self.questions)

    @property
    def fitted(self) -> list[str]:
        """The samples that directions are fitted on."""
        return self._ids(self.halves.fitted[: self.config.steering.fit.questions])

    @property
    def steered(self) -> list[str]:
        """The samples that are steered."""
        return self._ids(self.halves.steered[: self.config.steering.questions])

    @cached_property
    def directions(self) -> dict[str, ToneDirection]:
        """Every direction by its name, controls last."""
        return {direction.name: direction for direction in directions_of(self.config)}

    @property
    def layers(self) -> list[tuple[int, ...]]:
        """The sets of layers that are edited at once."""
        configured = self.config.steering.layers
        if configured != MIDDLE:
            return layer_sets(configured)
        if self.n_layers is None:
            raise ValueError("steering.layers = 'middle': the depth of the model is not known")
        return [(self.n_layers // 2,)]

    @cached_property
    def conditions(self) -> list[tuple[str, str, list[str]]]:
        """Every condition's folder with a variant and the samples that are steered, those without an edit first."""
        settings, samples = self.config.steering, self.steered
        few = samples[: settings.controls.questions]
        few_doses = settings.doses if settings.controls.doses is None else settings.controls.doses
        added = settings.variants if "add" in settings.operations else []
        ablated = {tone: [tone, self.reference] for tone in self.tones} if "ablate" in settings.operations else {}
        unsteered = dict.fromkeys([*added, *(variant for variants in ablated.values() for variant in variants)])
        conditions = [(NONE, variant, samples) for variant in unsteered]
        for direction in self.directions.values():
            control = direction.family in CONTROLS
            questions, doses = (few, few_doses) if control else (samples, settings.doses)
            for phase in settings.phases:
                for layers in self.layers:
                    edits = [SteeringEdit(direction.name, "add", phase, layers, dose) for dose in doses if dose]
                    conditions += [(edit.folder, variant, questions) for edit in edits for variant in added]
                    if direction.family == "tone":
                        folder = SteeringEdit(direction.name, "ablate", phase, layers, 1.0).folder
                        conditions += [(folder, variant, questions) for variant in ablated.get(direction.name, [])]
        return conditions

    @cached_property
    def trajectories(self) -> dict[SteeredPair, int]:
        """Every trajectory, the draws of a sample together, with its place among all."""
        draws = range(1, self.config.generation.draws + 1)
        every = (
            SteeredPair(condition, variant, draw_id(sample, draw))
            for condition, variant, samples in self.conditions
            for sample in samples
            for draw in draws
        )
        return {steered: place for place, steered in enumerate(every)}

    def fitted_variants(self, name: str) -> list[str]:
        """The variants whose activations a direction is made of; `control` tells the length of the stream."""
        direction = self.directions[name]
        return list(dict.fromkeys([*([] if direction.tone is None else [direction.tone, self.reference]), CONTROL]))

    def text_blocks(self, tone: str) -> dict[str, int]:
        """Fitting sample → number of its block, as `text_blocks` of the texts of the tone and of the reference."""
        places = self.halves.fitted[: self.config.steering.fit.questions]
        texts: dict[str, list[Hashable]] = {sample: [] for sample in self._ids(places)}
        for name in (tone, self.reference):
            # Which text a transform adds is not known, so all of its samples count as having the same one.
            has_texts = bool(variant_texts(self.config, name))
            if has_texts or self.config.variants[name].transform is not None:
                for sample, place in zip(texts, places, strict=True):
                    texts[sample].append((name, paraphrase_index(self.config, name, place)))
        return text_blocks(texts)

    def _ids(self, places: Sequence[int]) -> list[str]:
        return [sample_id(self.config.dataset, place) for place in places]


# Texts that a tone's direction is fitted on. A text differs from others by its wording, which makes up 92–98 % of the
# variance of such directions, so labels are shuffled over texts. Where half of a few texts are exchanged, the mean over
# all of them lies outside of what the shuffled ones span: a tone with texts that are drawn like the reference's exceeds
# them in 25 % of experiments with 4 texts, 10 % with 8, 8 % with 12, 7 % with 16 and 6 % with 24 (`beyond_shuffled` in
# `tests/calibration/steering.py`); the verdict takes random directions and the interval as well.
LEAST_TEXTS = 24


def text_blocks(texts: Mapping[str, Sequence[Hashable]]) -> dict[str, int]:
    """Sample → number of its block, from 0: samples that share a text are in one, directly or through others.

    Labels that are shuffled over texts move whole blocks.

    Args:
        texts: sample → its texts, of the variants that are compared.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(one: Hashable) -> Hashable:
        while parent.setdefault(one, one) != one:
            parent[one] = one = parent[parent[one]]
        return one

    for sample, own in texts.items():
        for text in own:
            parent[root(("text", text))] = root(("sample", sample))
    roots = {sample: root(("sample", sample)) for sample in texts}
    numbers = {one: number for number, one in enumerate(dict.fromkeys(roots.values()))}
    return {sample: numbers[one] for sample, one in roots.items()}


def captured_questions(config: Config) -> int:
    """Return the number of captured questions, from the first; steering divides them into two halves."""
    samples, captured = config.dataset.samples, config.capture.samples
    return samples if captured is None else min(samples, captured)


def tones_of(config: Config) -> list[str]:
    """The variants of an experiment that have a direction: those named, or all with a negative or positive valence."""
    if config.steering.tones is not None:
        return config.steering.tones
    references = references_of(config.variants, config.analysis.references)
    return [
        name
        for name, variant in config.variants.items()
        if variant.valence in ("negative", "positive") and name not in references
    ]


def directions_of(config: Config) -> list[ToneDirection]:
    """Every direction of an experiment, controls last; names may come up twice where a config is not checked."""
    settings, tones = config.steering, tones_of(config)
    references = references_of(config.variants, config.analysis.references)
    directions: list[ToneDirection] = []
    if "diff_means" in settings.methods:
        directions += [ToneDirection(tone, "tone", tone) for tone in tones]
    if "probe" in settings.methods:
        directions += [ToneDirection(f"probe-{tone}", "probe", tone) for tone in tones]
    directions += [ToneDirection(name, file.family) for name, file in settings.files.items()]
    controls = settings.controls
    # Without a reference that has a text there is nothing to be orthogonal to.
    if controls.orthogonal and references and references[-1] != CONTROL:
        directions += [ToneDirection(f"orthogonal-{tone}", "orthogonal", tone) for tone in tones]
    directions += [
        ToneDirection(f"shuffled-{tone}-{number:02d}", "shuffled", tone)
        for tone in tones
        for number in range(1, controls.shuffled + 1)
    ]
    directions += [ToneDirection(f"random-{number:02d}", "random") for number in range(1, controls.random + 1)]
    return directions


def named_direction(name: str, variants: Iterable[str]) -> ToneDirection:
    """Describe a direction by its name alone, in a folder without a config of it.

    Args:
        name: of the direction.
        variants: of the folder: a direction that is called like one is its difference of means.
    """
    if name in set(variants):
        return ToneDirection(name, "tone", name)
    match = _NAMED.fullmatch(name)
    if match is None:
        return ToneDirection(name, "file")
    return ToneDirection(
        name, cast(Family, match["family"] or match["other"] or "random"), match["tone"] or match["of"]
    )


def question_key(question: str) -> str:
    """Return what stands for the text of a question, which a plan remembers."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:16]


LEAST_GROUPS = 5  # fewer cannot be dealt evenly: then single questions are


@dataclass(frozen=True)
class Halves:
    """The places of questions in the permutation, from 0, in ascending order."""

    fitted: list[int]
    steered: list[int]


def halves(groups: Sequence[str | None], seed: int, questions: Sequence[str] = ()) -> Halves:
    """Divide the first questions of an experiment.

    Groups are dealt in the order in which they come up, two at a time, one to each half. So the halves of the first
    questions stay what they are when more are drawn. Copies of a question are a group.

    Args:
        groups: what each question shares with others; null where it shares nothing.
        seed: decides which of two goes where.
        questions: what each question asks; empty where that is not known, so that none is a copy.
    """
    asked: list[Hashable] = list(questions or range(len(groups)))
    named = [one if group is None else ("group", group) for one, group in zip(asked, groups, strict=True)]
    if len(set(named)) < LEAST_GROUPS:
        named = asked
    half: dict[Hashable, int] = {}
    for name in named:
        if name not in half:
            pair, second = divmod(len(half), 2)
            half[name] = second ^ random.Random(f"{seed}:halves:{pair}").getrandbits(1)
    return Halves(*([place for place, name in enumerate(named) if half[name] == which] for which in (0, 1)))
