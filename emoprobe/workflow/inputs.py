"""Inputs of the jobs that cost a model's time: a lost file that others can do without makes none of them again.

Snakemake makes a job again where an input of it is missing and has to be made, even if the new file is equal. A job
whose outputs are there and whose parameters are those that are recorded therefore gets a stand-in for such an input: a
file that is there, recorded under the name of the lost one. Once the file is back, Snakemake compares its checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from snakemake.io import IOFile, ancient, sourcecache_entry

from emoprobe.conversations.samples import counterpart, split_draw_id
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.layout import ACTIVATION_FILES, OUTCOMES_FILE, SCORES, TRAJECTORY_FILES, Layout
from emoprobe.results.trajectory import STATE
from emoprobe.workflow.targets import Targets
from emoprobe.workflow.triggers import Triggers, code

Input = Any  # a path, or one with Snakemake's flags


@dataclass(eq=False)
class Inputs:
    """The inputs of the jobs of one experiment.

    Args:
        targets: its files.
        triggers: its digests.
        persistence: gives Snakemake's records, which there are once a plan is made.
        stand_in: a file that is there and that no rule makes, as an absolute path.
        say: takes a line for the user.
    """

    targets: Targets
    triggers: Triggers
    persistence: Callable[[], Any]
    stand_in: Path
    say: Callable[[str], None]
    _said: set[str] = field(default_factory=set)
    _there: dict[Path, bool] = field(default_factory=dict)
    _due: dict[str, str | None] = field(default_factory=dict)

    @property
    def _here(self) -> Layout:
        return self.targets.found or self.targets.layout

    def preregistration(self) -> list[Input]:
        """Return the inputs of the analysis plan: the model, once."""
        here, model = self._here.model, str(self.targets.layout.model)
        if not self._exists(here) and self._is_registered:
            return [self._without(here)]
        return [ancient(model) if self._settled([here], self.triggers.model) else model]

    def answer(self, variant: str, name: str) -> list[Input]:
        """Return the inputs of an answer: its question and the analysis plan."""
        return self._asked(self._answer_files(variant, name), self.triggers.trajectory(variant, name), name)

    def steered(self, condition: str, variant: str, name: str) -> list[Input]:
        """Return the inputs of a steered answer: its question, the analysis plan and its direction, if any."""
        outputs = self._steered_files(condition, variant, name)
        made_from = self.triggers.steered[variant]
        found = self._asked(outputs, made_from, name)
        if condition == "none":
            return found
        direction = condition.partition("/")[0]
        return [*found, self._direction(direction, outputs, made_from)]

    def replayed(self, variant: str, name: str, outputs: list[Path], made_from: str) -> list[Input]:
        """Return the inputs of a capture, or of what graders ask the model: the answer's tokens.

        Args:
            variant: of the answer.
            name: of the answer's folder.
            outputs: the files that are made.
            made_from: the digest of what they are made with.
        """
        answer = self._answer_files(variant, name)
        state = self.targets.layout.pair(variant, name) / STATE
        return [self._after(state, answer, self.triggers.trajectory(variant, name), outputs, made_from)]

    def outcomes(self, variant: str, name: str) -> list[Input]:
        """Return the inputs of what graders ask the model about an answer."""
        return self.replayed(variant, name, [self._here.pair(variant, name) / OUTCOMES_FILE], self.triggers.outcomes)

    def judged(self, judge: str, variant: str, name: str) -> list[Input]:
        """Return the inputs of a judgement: the answers, and the judge's model where the run serves it."""
        outputs, made_from = [self._here.judgement(judge, variant, name)], self.triggers.judges[judge]
        answers = self.replayed(variant, name, outputs, made_from)
        config = self.targets.config
        reference = next(one.compare_with for one in config.judges if one.outcome == judge)
        if reference is not None:
            answers += self.replayed(reference, counterpart(config, reference, name), outputs, made_from)
        if judge not in self.triggers.judge_models:
            return answers
        here, model = self._here.judge_model(judge), str(self.targets.layout.judge_model(judge))
        if not self._settled(outputs, made_from):
            return [*answers, model]
        return [*answers, ancient(model) if self._exists(here) else self._without(here)]

    def scored(self, condition: str, variant: str, name: str) -> list[Input]:
        """Return the inputs of the scores of a steered answer: its tokens."""
        answer = self._steered_files(condition, variant, name)
        outputs = [self._here.steered(condition, variant, name) / SCORES]
        state = self.targets.layout.steered(condition, variant, name) / STATE
        return [self._after(state, answer, self.triggers.steered[variant], outputs, self.triggers.scores)]

    def _asked(self, outputs: list[Path], made_from: str, name: str) -> list[Input]:
        layout, here = self.targets.layout, self._here
        sample_id = split_draw_id(name)[0]
        question, plan = here.sample(sample_id), str(layout.plan)
        if self._exists(question) and self._exists(here.model) and self._is_registered:
            return [layout.sample(sample_id), ancient(plan)]
        if not self._settled(outputs, made_from):
            if not self._exists(here.model) and self._is_registered:
                # The plan does not wait for the model any more, so that this job has to.
                return [layout.sample(sample_id), sourcecache_entry(str(layout.model), str(here.plan))]
            return [layout.sample(sample_id), plan]
        if not self._exists(here.model):
            self._tell(here.model)
        return [
            layout.sample(sample_id) if self._exists(question) else self._without(question),
            ancient(plan) if self._is_registered else self._without(here.plan),
        ]

    def _after(self, state: Path, answer: list[Path], answer_from: str, outputs: list[Path], made_from: str) -> Input:
        """The answer that a job reads, or the lost model where the answer does not wait for it any more."""
        if (
            self._exists(self._here.model)
            or self._settled(outputs, made_from)
            or not self._settled(answer, answer_from)
        ):
            return state
        return sourcecache_entry(str(self.targets.layout.model), str(answer[0].with_name(STATE)))

    def _direction(self, name: str, outputs: list[Path], made_from: str) -> Input:
        """A direction; one that is only fitted again for its code, or for a lost file, is compared afterwards."""
        assert self.targets.steering is not None
        path, here = self.targets.layout.direction(name), self._here.direction(name)
        if name not in self._due:
            self._due[name] = self._due_alone(name)
        due = self._due[name]
        if due is None or not self._settled(outputs, made_from):
            return path
        if self._exists(here):
            self._say_once(
                f"{self._here.root}: {due}; an answer that was steered along a direction which comes out different is "
                "made again by the next run"
            )
        return self._without(here)

    def _due_alone(self, name: str) -> str | None:
        """Return why a direction is fitted again although its config is the same; None: it is not."""
        steering, here = self.targets.steering, self._here.direction(name)
        assert steering is not None
        recorded = self._recorded(here)
        if repr(steering.made_from.get(name)) not in recorded:
            return None
        if not self._exists(here):
            return "directions are missing and are fitted again"
        if repr(code("fit_direction")) not in recorded:
            return "directions are fitted again, as the code that fits them has changed"
        kept = set(self.targets.tensors())
        fitted_on = steering.fitted_on(name)
        tensors = (f"{metadata.removesuffix(METADATA)}{TENSORS}" for metadata in fitted_on)
        wanted = [*fitted_on, *(path for path in tensors if path in kept)]
        if not all(self._exists(self._placed(path)) for path in wanted):
            return "activations of the fitting half are missing, so that directions are fitted again"
        return None

    def _exists(self, path: Path) -> bool:
        """Return whether a file was there when the plan was made, which is the same for all jobs of it."""
        if path not in self._there:
            self._there[path] = path.exists()
        return self._there[path]

    def _placed(self, path: str) -> Path:
        return self._here.root / Path(path).relative_to(self.targets.layout.root)

    @cached_property
    def _is_registered(self) -> bool:
        """Whether the analysis plan is there, for the answers that would be asked for now."""
        return self._settled([self._here.plan], self.triggers.answers)

    def _settled(self, outputs: Iterable[Path], made_from: str) -> bool:
        """Return whether all outputs of a job are there, made from what it would be made from now."""
        return all(self._exists(path) and repr(made_from) in self._recorded(path) for path in outputs)

    def _recorded(self, path: Path) -> list[str]:
        """The parameters that a file was made with, as Snakemake records them."""
        records = self.persistence()
        return [] if records is None else records.params(IOFile(path)) or []

    def _answer_files(self, variant: str, name: str) -> list[Path]:
        here = self._here
        captured = ACTIVATION_FILES if self.targets.config.captures_inline else ()
        folder = here.activations(variant, name)
        return [*(here.pair(variant, name) / file for file in TRAJECTORY_FILES), *(folder / file for file in captured)]

    def _steered_files(self, condition: str, variant: str, name: str) -> list[Path]:
        return [self._here.steered(condition, variant, name) / file for file in TRAJECTORY_FILES]

    def _without(self, path: Path) -> Input:
        """The stand-in for a file that is lost, or is made again although a job can do without, recorded as that file.

        `ancient` would not do: Snakemake does not look whether jobs after one that runs have reasons of their own.
        """
        if not self._exists(path):
            self._tell(path)
        return ancient(sourcecache_entry(str(self.stand_in), str(path)))

    def _tell(self, path: Path) -> None:
        """Say that a lost file costs no answer."""
        beside = [known for known in self._of_its_kind(path) if not self._exists(known)]
        subject = (
            f"{path} is missing; it" if len(beside) == 1 else f"{len(beside)} files of {path.parent} are missing; they"
        )
        self._say_once(f"{subject} will be made again; {self._answers()} answers stay")

    def _of_its_kind(self, path: Path) -> list[Path]:
        here, targets = self._here, self.targets
        if path.parent == here.sample("x").parent:
            return [self._placed(str(each)) for each in targets.samples()]
        if targets.steering is not None and path.parent == here.direction("x").parent:
            return [self._placed(str(each)) for each in targets.steering.directions()]
        return [path]

    def _answers(self) -> int:
        files = [*self.targets.trajectories([STATE]), *self.targets.steered([STATE])]
        return sum(self._exists(self._placed(path)) for path in files)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.say(line)
