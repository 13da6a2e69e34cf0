"""What makes which file again: short digests that the rules carry as `params`.

A digest covers exactly what a file depends on and nothing else, so that Snakemake plans what a change made stale and
only that. Where a file depends on several parts of the config, its digest names each, so that a dry run says which one
changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.science.outcome_grader import OutcomeGrader
from emoprobe.conversations import kinds, samples, variants
from emoprobe.functions import source_sha256
from emoprobe.models import source as models
from emoprobe.models.autoencoders import identity as weights_identity
from emoprobe.results.layout import split_draw_id
from emoprobe.workflow.code import code_digest

EXECUTION = {
    name for name, field in Config.model_fields.items() if not getattr(field.annotation, "changes_results", True)
}
PAGES = ("emoprobe.report.page", "emoprobe.report.captions", "emoprobe.report.templates")
# Rule → the modules whose code decides what it computes.
CODE = {
    "tabulate_trajectories": ("emoprobe.stages.trajectories",),
    "analyze_behaviour": ("emoprobe.stages.behaviour",),
    "probe_activations": ("emoprobe.stages.probes",),
    "tabulate_steering": ("emoprobe.stages.steering_table",),
    "analyze_steering": ("emoprobe.stages.steering",),
    "train_autoencoder": ("emoprobe.stages.features.train",),
    "measure_autoencoders": ("emoprobe.stages.features.measure",),
    "analyze_features": ("emoprobe.stages.features.analyze",),
    "fit_direction": ("emoprobe.steering.directions",),
    "draw_figures": ("emoprobe.stages.figures", "emoprobe.report.figures"),
    "tabulate_study": ("emoprobe.stages.study_table",),
    "report_study": ("emoprobe.stages.study", "emoprobe.report.study", "emoprobe.report.figures.study", *PAGES),
    "build_explorer": ("emoprobe.stages.explorer", "emoprobe.explorer"),
    "report_experiment": ("emoprobe.stages.report", *PAGES),
}
# Versions of what costs a model's time, or decides what a model is asked. Raise one by hand where a change of the code
# changes tokens or numbers: everything of that stage is made again then. `tests/emoprobe/workflow/test_stages.py`
# compares each with stored outputs.
STAGES = {
    "model": 1,
    "sample": 1,
    "generate": 1,
    "outcomes": 1,
    "judge": 1,
    "capture": 1,
    "tokens": 1,
    "steer": 1,
    "score": 1,
}


def digest(value: Any, *, ordered: bool = False) -> str:
    """Twelve hexadecimal digits that stand for a JSON value; `ordered` makes the order of keys count."""
    return hashlib.sha256(json.dumps(value, sort_keys=not ordered).encode()).hexdigest()[:12]


def versioned(content: str, *stages: str) -> str:
    """A digest with the versions of the stages that were raised; files of version 0.2 are of version 1 each."""
    raised = [f" stage {stage} {STAGES[stage]}" for stage in stages if STAGES[stage] > 1]
    return content + "".join(raised)


@dataclass(frozen=True)
class Triggers:
    """The digests of one configuration, by what they make again.

    `trajectories` has one for each variant, `steered` the same without what is captured along with an answer. `answers`
    changes where all of them do. `outcomes` is what graders ask the model, `judges` what each judge is asked, by its
    label, `judge_models` the models of those that the run serves, `graders` all of their settings, `graded` those that
    decide their values, with the source of functions. `labels` is what the analysis knows of the variants. `tokens` is
    what is captured for the features, `autoencoder` what it is trained with or where it comes from, `evaluated` and
    `features` how it is measured and which features are tested, against the primary one of `references`.
    """

    model: str
    data: str
    rows: dict[str, str]
    answers: str
    trajectories: dict[str, str]
    steered: dict[str, str]
    scores: str
    outcomes: str
    judges: dict[str, str]
    judge_models: dict[str, str]
    graders: str
    graded: str
    capture: str
    probes: str
    analysis: str
    coherence: str
    labels: str
    tokens: str
    autoencoder: str
    evaluated: str
    features: str
    references: str
    experiment: str
    draws: int

    def sample(self, name: str) -> str:
        """Return the digest of one sample; where rows have ids, it names its own row and no other."""
        return f"{self.data} row {self.rows[name]}" if self.rows else self.data

    def trajectory(self, variant: str, name: str) -> str:
        """Return the digest of one trajectory by its folder; of a further ask, with another text, it names which."""
        ask = (split_draw_id(name)[1] - 1) // self.draws
        return self.trajectories[variant] + (f" ask {ask + 1}" if ask else "")

    @classmethod
    def of(cls, config: Config) -> Triggers:
        """Compute the digests; reads local data, model metadata and transforms, downloads nothing."""
        described = {name: value for name, value in config.described().items() if name not in EXECUTION}
        model = versioned(digest([models.identity(config.model), config.model.dtype]), "model")
        rows = samples.row_digests(config.dataset, config.experiment.seed)
        data = versioned(digest(samples.identity(config.dataset, config.experiment.seed)), "sample")
        prompt, generation = digest(config.prompt.content()), digest(config.generation.content())
        plain = f"model {model} data {data} prompt {prompt} generation {generation}"
        if config.conversation.kind != "single":
            plain += f" conversation {digest(kinds.identity(config))}"
        capture = versioned(digest(config.capture.content()), "capture")
        shared = versioned(f"{plain} capture {capture}" if config.captures_inline else plain, "generate")
        steered = versioned(plain, "steer")
        seed = config.experiment.seed
        served = {judge.outcome: models.identity(judge.served) for judge in config.judges if judge.served is not None}
        own = {name: f"variant {digest(variants.identity(config, name))}" for name in config.variants}
        return cls(
            model=model,
            data=data,
            rows=rows,
            answers=shared,
            trajectories={name: f"{shared} {variant}" for name, variant in own.items()},
            steered={name: f"{steered} {variant}" for name, variant in own.items()},
            scores=versioned(digest(config.steering.scores.content()), "score"),
            outcomes=versioned(digest(_asked(config)), "outcomes"),
            judges={
                judge.outcome: versioned(digest([judge.asked, seed, *served.get(judge.outcome, [])]), "judge")
                for judge in config.judges
            },
            judge_models={name: versioned(digest(known), "model") for name, known in served.items()},
            graders=digest(config.resolved()["graders"]),
            graded=digest(_graded(config)),
            capture=capture,
            probes=digest(config.probes.content()),
            analysis=digest(config.analysis.content()),
            coherence=digest(config.steering.coherence.content()),
            labels=digest(_labels(config)),
            tokens=versioned(digest([config.features.layer, config.features.dtype]), "tokens"),
            autoencoder=digest([weights_identity(config.features.autoencoder), config.experiment.seed]),
            evaluated=digest(config.features.evaluated),
            features=digest([config.features.chosen, config.features.contexts]),
            references=digest(references_of(list(config.variants), config.analysis.references)),
            experiment=digest(described, ordered=True),  # the files show the order of variants
            draws=config.generation.draws,
        )


def _asked(config: Config) -> Any:
    """What graders ask the model; that of `logprob` alone as in earlier versions."""
    logprob = None if config.logprob is None else config.logprob.content()
    return logprob if config.choice is None else [logprob, config.choice.asked]


def _graded(config: Config) -> list[Any]:
    """What decides the columns of graders, whatever their order: their settings, and the source of functions."""
    entries: list[list[Any]] = [["number"]] if config.grades_answers else []
    for entry in config.graders:
        if isinstance(entry, OutcomeGrader):
            source = None if entry.reference is None else source_sha256(entry.reference)
            entries.append([entry.outcome, entry.content(), source])
    return sorted(entries, key=lambda entry: str(entry[0]))


def _labels(config: Config) -> list[Any]:
    """The names and labels of the variants; arousal only where a variant has one, as earlier versions had none."""
    variants = config.variants.values()
    arousal = [variant.arousal for variant in variants]
    known: list[Any] = [list(config.variants), [variant.valence for variant in variants]]
    return [*known, arousal] if any(arousal) else known


@cache
def code(rule: str) -> str:
    """The digest of the code that decides what a rule computes."""
    return code_digest(*CODE[rule])
