"""Configuration of one experiment: all sections, and the rules between them.

`config/schema.json` and the tables in `config/README.md` are generated from these classes.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from emoprobe.config.api import api_problem
from emoprobe.config.execution.deploy import Deploy
from emoprobe.config.execution.storage import Storage
from emoprobe.config.execution.workers import Workers
from emoprobe.config.science.analysis import Analysis, Probes, references_of
from emoprobe.config.science.capture import Capture, turn_position
from emoprobe.config.science.conversation import AGENT, Conversation
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.science.features import Features
from emoprobe.config.science.formats import reformatted
from emoprobe.config.science.generation import Backend, Generation
from emoprobe.config.science.graders import ChoiceGrader, Graders, LogprobGrader, TextGrader, complete, label_of
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.config.science.model import Model
from emoprobe.config.science.prompt import Prompt, Variant
from emoprobe.config.science.steering import Steering
from emoprobe.config.section import CONTROL, Added, Extent, Section, check_name, format_name, is_format


class Experiment(Section):
    """Name and random seed of the experiment."""

    name: Annotated[str, Extent] = Field("pilot", description="Folder under `results/`; letters, digits, `_` and `-`.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Random seed of the samples and of every request.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)


class Config(Section):
    """Configuration of one experiment."""

    experiment: Experiment = Field(default_factory=Experiment)
    model: Model = Field(default_factory=Model)
    dataset: Dataset = Field(default_factory=Dataset)
    prompt: Prompt = Field(default_factory=Prompt)
    variants: dict[str, Variant] = Field(
        default_factory=lambda: {CONTROL: Variant()},
        description="Name → variant. One must be `control`, which the others are compared with.",
    )
    conversation: Annotated[Conversation, Added] = Conversation()
    generation: Generation = Field(default_factory=Generation)
    graders: Annotated[Graders, Added] = Field(
        ["number"], description="Graders of the answers; the sentences of the first come first."
    )
    workers: Workers = Field(default_factory=Workers)
    deploy: Deploy = Field(default_factory=Deploy)
    capture: Capture = Field(default_factory=Capture)
    probes: Probes = Field(default_factory=Probes)
    features: Features = Field(default_factory=Features)
    analysis: Analysis = Field(default_factory=Analysis)
    steering: Steering = Field(default_factory=Steering)
    storage: Storage = Field(default_factory=Storage)

    @field_validator("variants", mode="before")
    @classmethod
    def _null_variants(cls, variants: Any) -> Any:
        """`control:` with nothing after it means `control: {}`."""
        if isinstance(variants, dict):
            return {name: {} if variant is None else variant for name, variant in variants.items()}
        return variants

    @field_validator("variants")
    @classmethod
    def _variants(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            check_name(name)
        if CONTROL not in variants:
            raise ValueError(f"needs a variant called {CONTROL} to compare the others with; add `{CONTROL}: {{}}`")
        folded = [name.casefold() for name in variants]
        for name in variants:
            if folded.count(name.casefold()) > 1:
                raise ValueError(f"{name!r} differs from another variant in case only")
        return variants

    @field_validator("graders")
    @classmethod
    def _graders(cls, graders: Graders) -> Graders:
        return complete(graders)

    @model_validator(mode="after")
    def _inline_needs_capture(self) -> Config:
        if self.generation.backend == "nnsight" and self.workers.endpoints:
            raise ValueError("generation.backend nnsight uses workers.capture_endpoints, not workers.endpoints")
        return self

    @model_validator(mode="after")
    def _possible_with_an_api(self) -> Config:
        if (problem := api_problem(self)) is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _steered_by_place(self) -> Config:
        if self.dataset.id is not None and self.steering.enabled:
            raise ValueError("steering.enabled = true: deals questions by their number; remove dataset.id")
        return self

    @model_validator(mode="after")
    def _captures_come_from_somewhere(self) -> Config:
        files, deployed = self.workers.capture_files, self.deploy.backend is not None
        named = bool(self.workers.endpoints or self.workers.capture_endpoints)
        if self.workers.captures_elsewhere and not (self.workers.capture_endpoints or deployed):
            raise ValueError(f"workers.capture_files {files} is for workers.capture_endpoints, or servers to deploy")
        if files == "push" and self.storage.url is None:
            raise ValueError("workers.capture_files push needs storage.url, which the servers push to")
        if files == "shared" and deployed and not named:
            raise ValueError("workers.capture_files shared: servers that are deployed share no file system; remove it")
        return self

    @model_validator(mode="after")
    def _known_references(self) -> Config:
        unknown = [name for name in self.analysis.references or [] if name not in self.variants]
        if unknown:
            raise ValueError(f"analysis.references names {', '.join(unknown)}, which is no variant")
        return self

    @model_validator(mode="after")
    def _add_formats(self) -> Config:
        """Add a variant for each format of the prompt; a resolved config has them already."""
        wanted = self.prompt.formats
        templates = reformatted(self.prompt.template, self.experiment.seed) if wanted else []
        if wanted > len(templates):
            raise ValueError(f"prompt.formats = {wanted}: prompt.template has {len(templates)} other formats")
        formats = {format_name(number + 1): Variant(template=text) for number, text in enumerate(templates[:wanted])}
        for name, variant in self.variants.items():
            if is_format(name) and formats.get(name) != variant:
                raise ValueError(
                    f"variants.{name}: variants of that name are made by prompt.formats = {wanted}; remove or rename it"
                )
        self.variants.update(formats)
        return self

    @model_validator(mode="after")
    def _texts_for_every_ask(self) -> Config:
        for name, variant in self.variants.items():
            source = self.variants.get(variant.scramble or "", variant)
            if variant.asks > 1 and variant.asks > len(source.paraphrases):
                raise ValueError(
                    f"variants.{name}.asks = {variant.asks}: every ask of a question has another text, and there are "
                    f"{len(source.paraphrases)}"
                )
        return self

    @model_validator(mode="after")
    def _graders_have_answers(self) -> Config:
        data = self.dataset
        text = data.answer_type == "text" and data.choices is None
        for grader in self.graders:
            label, gold = label_of(grader), grader in ("number",) or isinstance(grader, LogprobGrader | ChoiceGrader)
            if data.answer is None and (gold or (isinstance(grader, TextGrader) and not grader.patterns)):
                raise ValueError(f"graders: {label} needs the gold answer, and dataset.answer is null")
            if grader == "number" and text:
                raise ValueError("graders: number needs numbers or letters, and dataset.answer_type is text")
            if isinstance(grader, ChoiceGrader) and data.choices is None:
                raise ValueError(f"graders: {label} needs options; name their column in dataset.choices")
        return self

    @model_validator(mode="after")
    def _correctness_is_graded(self) -> Config:
        """Without `number` no probe reads correctness: the target is left out, and an error where it is named."""
        if self.grades_answers:
            return self
        if self.steering.enabled:
            raise ValueError("steering.enabled: needs the grader number, as its outcomes are log p(gold) and accuracy")
        if self.prompt.formats:
            raise ValueError("prompt.formats: needs the grader number, as formats are compared by accuracy")
        for turn in self.conversation.turns:
            if turn.when in ("after_wrong", "after_right"):
                raise ValueError(f"conversation.turns: when {turn.when} needs the grader number")
        if "correct" in self.probes.targets:
            if "targets" in self.probes.model_fields_set:
                raise ValueError("probes.targets: correct needs the grader number, which graders does not contain")
            left = [target for target in self.probes.targets if target != "correct"]
            object.__setattr__(self, "probes", self.probes.model_copy(update={"targets": left}))
        return self

    @model_validator(mode="after")
    def _judges_compare_with_references(self) -> Config:
        references = references_of(self.variants, self.analysis.references)
        for judge in self.judges:
            if judge.compare_with is not None and judge.compare_with not in references:
                raise ValueError(
                    f"graders.{judge.outcome}.compare_with = {judge.compare_with!r} is no reference; name one of "
                    f"{', '.join(references) or 'analysis.references, which has none'}"
                )
        return self

    @model_validator(mode="after")
    def _judges_guess_variants(self) -> Config:
        """Let judges that guess choose among the variants."""
        if not self.outcome_graders:
            raise ValueError("graders: a guess of the variant is no outcome; add a grader")
        names = [name for name in self.variants if not is_format(name)]
        graders = [
            each.among(names, self.experiment.seed) if isinstance(each, JudgeGrader) and each.guess else each
            for each in self.graders
        ]
        object.__setattr__(self, "graders", graders)
        return self

    @model_validator(mode="after")
    def _judges_have_servers(self) -> Config:
        """Let the servers of a judge and the capture server take turns on a GPU."""
        if not self.served_judges:
            return self
        where = f"graders.{self.served_judges[0].outcome}"
        if self.deploy.backend is not None:
            raise ValueError(f"{where}: deploy.backend serves one model alone; name endpoints of the judge")
        if self.workers.gpu_sharing == "together":
            raise ValueError(f"{where}: a judge without endpoints needs workers.gpu_sharing: turns, or auto")
        if self.workers.gpu_sharing == "auto":
            object.__setattr__(self, "workers", self.workers.model_copy(update={"gpu_sharing": "turns"}))
        return self

    @model_validator(mode="after")
    def _known_turns(self) -> Config:
        last, kind = self.conversation.last_turn, self.conversation.kind
        count = f"a {kind} conversation has {last} turn{'s' if last > 1 else ''} of the user"
        answers = self.conversation.last_answer
        for name, variant in self.variants.items():
            if isinstance(variant.turn, int) and variant.turn > last:
                raise ValueError(f"variants.{name}.turn = {variant.turn}: {count}; lower it, or add turns")
            if variant.turn == "last" and self.conversation.is_open and last > 1:
                raise ValueError(
                    f"variants.{name}.turn = 'last': which turn of a {kind} conversation is the last is known only "
                    "afterwards; name a number"
                )
        for position in self.capture.positions if self.capture.positions != "all" else ():
            named = turn_position(position)
            if named is not None and (kind == "single" or named[0] > answers):
                most = f"a {kind} conversation has {answers} answers at most" if answers > last else count
                raise ValueError(f"capture.positions = {position!r}: {most}; remove the position, or add turns")
        if self.steering.enabled and kind != "single":
            raise ValueError(
                f"steering.enabled = true with conversation.kind {kind}: only single conversations can be steered; "
                "remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _servers_take_tools(self) -> Config:
        if self.conversation.kind != AGENT:
            return self
        if self.generation.backend != "vllm":
            raise ValueError(
                f"generation.backend {self.generation.backend} with conversation.kind agent: only vLLM generates with "
                "tools; set generation.backend: vllm (the capture server captures afterwards)"
            )
        if self.conversation.tool_parser is None:
            raise ValueError(
                "conversation.tool_parser: vLLM needs the parser of the model's tool calls, such as hermes; name it"
            )
        if self.generation.thinking is not None:
            raise ValueError(
                "generation.thinking with conversation.kind agent: vLLM renders these prompts, which it cannot change; "
                "remove it (generation.chat_template takes what the template knows, such as enable_thinking: false)"
            )
        return self

    @property
    def captures_inline(self) -> bool:
        """Whether generation captures in the same request (backend nnsight); with vllm, trajectories are replayed."""
        return self.capture.enabled and self.generation.backend == "nnsight"

    @property
    def server_kinds(self) -> list[Backend]:
        """Kinds of model server that the experiment needs: one to generate, and NNsight to capture and to steer."""
        if self.generation.backend != "vllm":
            return [self.generation.backend]
        inside = self.capture.enabled or self.features.enabled or self.steering.enabled
        return ["vllm", "nnsight"] if inside else ["vllm"]

    @property
    def has_probes(self) -> bool:
        """Whether probes are fitted, which need activations at positions that all trajectories share."""
        return self.capture.enabled and self.capture.positions != "all"

    @property
    def grader_labels(self) -> list[str]:
        """Labels of the graders, in the order of the list."""
        return [label_of(grader) for grader in self.graders]

    @property
    def outcome_graders(self) -> Graders:
        """The graders whose values are outcomes: all but judges that guess the variant."""
        return [grader for grader in self.graders if not (isinstance(grader, JudgeGrader) and grader.guess)]

    @property
    def grades_answers(self) -> bool:
        """Whether `number` is among the graders, so that there are accuracies."""
        return "number" in self.grader_labels

    @property
    def logprob(self) -> LogprobGrader | None:
        """The settings of the grader `logprob`; None where p(gold) is not measured."""
        return next((grader for grader in self.graders if isinstance(grader, LogprobGrader)), None)

    @property
    def choice(self) -> ChoiceGrader | None:
        """The settings that all graders of the kind `choice` share; None where no option is scored."""
        return next((grader for grader in self.graders if isinstance(grader, ChoiceGrader)), None)

    @property
    def judges(self) -> list[JudgeGrader]:
        """The graders of kind `judge`."""
        return [grader for grader in self.graders if isinstance(grader, JudgeGrader)]

    @property
    def served_judges(self) -> list[JudgeGrader]:
        """The judges that the run starts servers of."""
        return [judge for judge in self.judges if not judge.endpoints]

    @property
    def asks_model(self) -> bool:
        """Whether a grader asks the model about its answers, so that each has an `outcomes.json`."""
        return self.logprob is not None or self.choice is not None

    @property
    def pushes(self) -> bool:
        """Whether activations are copied to object storage."""
        return self.capture.enabled and self.storage.url is not None

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, defaults included, in plain JSON types."""
        return self.model_dump(mode="json")
