"""The analysis plan: what follows from the config before there is an answer, and what deviates from it afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.contrasts import PLANNED, Contrast, contrasts_of
from emoprobe.analysis.looks import looks_of
from emoprobe.analysis.outcomes import MEASURES, PRIMARY_MEASURE, primary_of
from emoprobe.analysis.power import ACCURACY, TEXT_DEVIATIONS, PowerDesign, Simulation, text_limit
from emoprobe.analysis.probes.probe_design import probe_plan
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL, POWER
from emoprobe.analysis.steering.preregistration import planned_tests
from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import TONE_TEXTS, references_of
from emoprobe.config.science.graders import LogprobGrader, label_of
from emoprobe.config.science.outcome_grader import OutcomeGrader
from emoprobe.config.section import CONTROL, dotted
from emoprobe.conversations.variants import variant_texts
from emoprobe.functions import source_of, source_sha256
from emoprobe.results.preregistration import PlannedContrast, PlannedEstimator, PowerRow, Preregistration, TokenMatch
from emoprobe.results.record import content_sha256

# What a deviation is called. The power and the token counts follow from these and from the model's tokenizer.
COMPARED = {
    "references": "the references",
    "contrasts": "the comparisons",
    "primary_measure": "the primary measure",
    "secondary_measures": "the secondary measures",
    "level": "the level of the tests",
    "correction": "the correction",
    "margin": "the margin of equivalence",
    "questions": "the number of questions",
    "draws": "the draws of each question",
    "allowed_failures": "the allowed share of failures",
    "estimators": "the texts",
    "looks": "the looks",
    "graders": "the graders",
    "outcomes": "the outcomes besides accuracy",
}
# Sections of the config that can change a verdict while the answers stay. What is compared under a name of its own is
# left out.
SECTIONS = ("analysis", "probes", "capture", "features", "steering")
NAMED = ("analysis.references", "analysis.margin", "analysis.looks")
# Settings of a variant that plans of earlier code lack.
LATER = ("arousal", "placement", "turn", "template", "prefill", "transform")


def analysis_plan(
    config: Config,
    token_lengths: Mapping[str, Sequence[int]] | None = None,
    probes: Mapping[str, Any] | None = None,
    steering: Mapping[str, Any] | None = None,
    code: Mapping[str, str] | None = None,
) -> Preregistration:
    """Build the preregistration from the config alone.

    Args:
        config: the experiment.
        token_lengths: tokens of each text of each variant, by the model's tokenizer; None: not known yet.
        probes: the section on probes.
        steering: the section on steering.
        code: a digest of the code of each step of the analysis; None: it is not recorded.
    """
    fixed = _fixed(config)
    references = fixed["references"]
    return Preregistration(
        **fixed,
        power=_power(config, [one for one in contrasts_of(list(config.variants), references) if one.primary]),
        token_tolerance=config.analysis.token_tolerance,
        token_match=_token_match(config, references, token_lengths or {}),
        probes=dict(probes or {}),
        steering=dict(steering or {}),
        settings=settings(config),
        code=None if code is None else dict(code),
    )


def settings(config: Config) -> dict[str, Any]:
    """Everything else that can change a verdict while the answers stay, by its name in the config."""
    found: dict[str, Any] = {"experiment.seed": config.experiment.seed, "dataset.group": config.dataset.group}
    for section in SECTIONS:
        found |= dotted(getattr(config, section).described(), f"{section}.")
    for name in config.variants:
        found |= {f"variants.{name}.{key}": value for key, value in _of_variant(config, name).items()}
    return {name: value for name, value in found.items() if name not in NAMED}


def _of_variant(config: Config, name: str) -> dict[str, Any]:
    """The labels of a variant, and what its answers alone depend on: others stay where it is changed."""
    variant = config.variants[name]
    found: dict[str, Any] = {"valence": variant.valence}
    if variant.asks > 1:
        found["asks"] = variant.asks
    found["texts"] = _short_hash(variant_texts(config, name), "texts")
    function = variant.transform
    return found | {
        "arousal": variant.arousal,
        "placement": variant.placement,
        "turn": variant.turn,
        "template": None if variant.template is None else _short_hash(variant.template),
        "prefill": variant.prefill,
        "transform": None if function is None else f"{function} {_short_hash(source_of(function))}",
    }


def _short_hash(value: Any, name: str = "value") -> str:
    return content_sha256({name: value})[:12]


def _fixed(config: Config) -> dict[str, Any]:
    """Everything that a config fixes and that can deviate from it later, without simulating the power."""
    names = list(config.variants)
    references = references_of(names, config.analysis.references)
    graders = config.outcome_graders
    outcomes = {label_of(grader): _registered(grader) for grader in graders if not isinstance(grader, str)}
    primary = primary_of(config).column
    return {
        "references": references,
        "primary_reference": references[-1] if references else None,
        "contrasts": [
            PlannedContrast(variant=one.variant, reference=one.reference, family=one.kind)
            for one in contrasts_of(names, references, valences_of(config), config.analysis.contrasts)
        ],
        "primary_measure": primary,
        "secondary_measures": [one for one in MEASURES if one != PRIMARY_MEASURE] if config.grades_answers else [],
        "level": LEVEL,
        "margin": config.analysis.margin,
        "questions": config.dataset.samples,
        "draws": config.generation.draws,
        "allowed_failures": config.generation.allowed_failures,
        "estimators": [_estimator(config, name) for name in names],
        "looks": looks_of(config),
        "graders": [*map(label_of, graders)] if outcomes else None,
        "outcomes": outcomes or None,
    }


def _registered(grader: LogprobGrader | OutcomeGrader) -> dict[str, Any]:
    """Return the settings of a grader, with the source of a function of the user."""
    if isinstance(grader, LogprobGrader):
        return grader.model_dump(exclude={"name"})
    source = {} if grader.reference is None else {"source_sha256": source_sha256(grader.reference)}
    later = {"label", "endpoints", "api_key_env", "labels"}  # that may change after the answers
    return {**{key: value for key, value in grader.described().items() if key not in later}, **source}


def valences_of(config: Config) -> dict[str, str | None]:
    """The valence of each variant in the config."""
    return {name: variant.valence for name, variant in config.variants.items()}


def deviations(
    plan: Preregistration, config: Config, table: pd.DataFrame | None = None, code: Mapping[str, str] | None = None
) -> list[str]:
    """List the deviations of the analysis from the plan, a phrase each.

    Args:
        plan: the plan that was written before the first answer.
        config: the config of the analysis.
        table: the trajectories, if questions or draws that are missing there count.
        code: the digests of the analysis now.
    """
    fixed = _fixed(config)
    if plan.settings is None:  # of version 0.2, which planned no contrasts of several variants and no looks
        fixed["contrasts"] = [one for one in fixed["contrasts"] if one.family != PLANNED or config.analysis.contrasts]
    now = plan.model_copy(update=fixed).values()
    then = {**plan.values(), "looks": {str(size): weight for size, weight in plan.registered.items()}}
    phrases = [
        f"{called} changed from {_short(then.get(key))} to {_short(now.get(key))}"
        for key, called in COMPARED.items()
        if _text(then.get(key)) != _text(now.get(key))
    ]
    if plan.settings is not None:
        phrases += _changes(plan.settings, json.loads(json.dumps(settings(config))))
    if plan.code is not None and code is not None:
        changed = [rule for rule in plan.code if rule in code and plan.code[rule] != code[rule]]
        phrases += [f"the code of {rule} changed" for rule in changed]
    planned_probes, now_probes = plan.probes, probe_plan(config)
    if planned_probes and planned_probes != (now_probes.values() if now_probes is not None else None):
        phrases.append(
            "there are no activations to probe"
            if now_probes is None
            else "the probes' targets, units, permutations or rules are not the planned ones"
        )
    steering = planned_tests(config)
    now_steering = {} if steering is None else steering.values()
    # What the plan of an earlier version lacks is no deviation.
    if plan.steering != {
        key: value for key, value in now_steering.items() if key in plan.steering or not plan.steering
    }:
        phrases.append("the directions that are steered along, their doses or rules are not the planned ones")
    if table is not None:
        here, draws = table["sample_id"].nunique(), Questions(table).draws
        if here != plan.questions and now["questions"] == plan.questions:
            phrases.append(f"{here} questions have trajectories, not {plan.questions}")
        if len(table) and draws != plan.draws and now["draws"] == plan.draws:
            phrases.append(f"there are {draws} draws of a question, not {plan.draws}")
        planned = {entry.variant for entry in plan.estimators}
        missing, added = planned - {*table["variant"]}, {*table["variant"]} - planned
        phrases += [f"{name} has no trajectories" for name in sorted(missing)]
        phrases += [f"{name} was not planned" for name in sorted(added)]
    return phrases


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting that is another one, or that only one side has; what an earlier plan lacks is none."""
    lacking = {name for name in now if name not in then and name.rpartition(".")[2] in LATER}
    lacking = {name for name in lacking if f"{name.rpartition('.')[0]}.texts" in then}
    return [
        f"{name} changed from {_short(then.get(name))} to {_short(now.get(name))}"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name) and name not in lacking
    ]


def _estimator(config: Config, name: str) -> PlannedEstimator:
    texts = _texts(config, name)
    adds = config.variants[name].transform or config.variants[name].prefill or variant_texts(config, name)
    return PlannedEstimator(
        variant=name,
        unit="texts" if texts > 1 else "this text" if adds else "no text",
        texts=texts,
        questions_per_text=config.dataset.samples // texts,
    )


def _texts(config: Config, name: str) -> int:
    """Different texts of a variant that get a question, scrambled ones of another included; at least 1."""
    return max(1, min(len(set(variant_texts(config, name))), config.dataset.samples))


def _power(config: Config, primary: list[Contrast]) -> list[PowerRow]:
    """The power of the primary comparison with the fewest texts, which stands for a tone if any does."""
    if not primary or not config.grades_answers:
        return []
    questions, margin = config.dataset.samples, config.analysis.margin

    def texts_of(name: str) -> int:
        return 0 if name == CONTROL else _texts(config, name)

    tones = [one for one in primary if texts_of(one.variant) > 1] or primary
    worst = min(tones, key=lambda one: texts_of(one.variant))
    design = PowerDesign(
        questions,
        config.generation.draws,
        texts_of(worst.variant),
        texts_of(worst.reference),
        len(primary),
        looks_of(config).get(questions, 1.0),
        config.variants[worst.reference].asks,
    )
    rows = []
    for deviation in TEXT_DEVIATIONS:
        simulation = Simulation(design, deviation)
        detectable, limit = simulation.detectable(), text_limit(design, deviation)
        rows.append(
            PowerRow(
                variant=worst.variant,
                reference=worst.reference,
                text_deviation=deviation,
                questions=questions,
                draws=design.draws,
                texts=design.texts,
                reference_texts=design.reference_texts,
                tests=design.tests,
                assumed_accuracy=ACCURACY,
                power=POWER,
                detectable=detectable,
                limit=limit,
                equivalence_power=round(simulation.equivalence(margin), 3),
                reachable=detectable is not None,
                needs_more_texts=design.texts < TONE_TEXTS or limit is None or limit > margin,
            )
        )
    return rows


def _token_match(config: Config, references: Sequence[str], lengths: Mapping[str, Sequence[int]]) -> list[TokenMatch]:
    """Each tone's mean tokens beside those of the primary reference, where that one has texts."""
    if not references or not lengths.get(references[-1]):
        return []
    standard = float(np.mean(lengths[references[-1]]))
    matches = []
    for name in config.variants:
        if name in references or not lengths.get(name):
            continue
        tokens = float(np.mean(lengths[name]))
        ratio = tokens / standard
        matches.append(
            TokenMatch(
                variant=name,
                tokens=round(tokens, 2),
                reference_tokens=round(standard, 2),
                ratio=round(ratio, 3),
                matched=abs(ratio - 1) <= config.analysis.token_tolerance,
            )
        )
    return matches


def _short(value: Any) -> str:
    """A value in a sentence: lists by their length where they are long."""
    text = str(value)
    return text if len(text) <= 60 or not hasattr(value, "__len__") else f"{len(value)} entries"


def _text(value: Any) -> str:
    """A value as JSON, whose keys are text."""
    return json.dumps(value, sort_keys=True)
