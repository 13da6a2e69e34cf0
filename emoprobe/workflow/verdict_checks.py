"""Verdicts that the variants and judges of a configuration put out of reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import LEAST_VARIANTS, TONE_TEXTS
from emoprobe.config.science.prompt import SIGNS
from emoprobe.conversations.samples import sample_index
from emoprobe.conversations.variants import paraphrase_index, variant_texts


def unreachable_valence(config: Config, captured: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield why a probe of valence will get no verdict, one line each: a warning, as it is fitted all the same.

    Nothing is said where one valence has no variant: such an experiment does not compare valences.

    Args:
        config: the experiment, which has probes.
        captured: variant and trajectory of everything that is captured.
    """
    signs = [SIGNS[variant.valence] for variant in config.variants.values() if variant.valence in SIGNS]
    negative, positive = sum(sign < 0 for sign in signs), sum(sign > 0 for sign in signs)
    if "valence" not in config.probes.targets or not (negative and positive):
        return
    if min(negative, positive) < LEAST_VARIANTS:
        yield (
            f"probes.targets: no verdict is within reach on valence with {negative} negative and {positive} positive "
            f"variant{'s' * (positive > 1)}: it takes {LEAST_VARIANTS} of each; add variants, or leave valence out"
        )
    yield from _inseparable(config, captured)


def _inseparable(config: Config, captured: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a line where texts of the two valences differ too much in words or punctuation.

    Only words and punctuation of the texts are known without a model; the analysis compares prompt tokens as well.
    """
    signs = {
        name: SIGNS[variant.valence]
        for name, variant in config.variants.items()
        if variant.valence in SIGNS and not variant.transform and variant_texts(config, name)
    }
    known = sum(variant.valence in SIGNS for variant in config.variants.values())
    if len(signs) < known:
        return
    # Here, as they bring NumPy, which plans without such probes do without.
    import numpy as np

    from emoprobe.analysis.probes.confounds import Confounds, text_features

    names, texts = [], []
    for name, trajectory in captured:
        place = paraphrase_index(config, name, sample_index(config, trajectory)) if name in signs else None
        if place is not None:
            names.append(name)
            texts.append(variant_texts(config, name)[place])
    chosen, variant = np.unique(names, return_inverse=True)
    features = {name: values for name, values in text_features(texts).items() if np.ptp(values) > 0}
    if len(chosen) < len(signs) or not features:
        return
    apart = Confounds.of(features, variant, np.array([signs[name] for name in chosen])).inseparable
    if apart:
        yield (
            f"probes.targets: no verdict is within reach on valence: negative and positive texts differ in "
            f"{' and '.join(apart)} by more than the texts of one variant do; match their numbers between valences, or "
            "give each variant texts of several lengths"
        )


def few_texts(config: Config) -> list[str]:
    """Return a warning where variants have too few texts for a claim about their tone."""
    counts = {
        name: min(len(set(variant_texts(config, name))), config.dataset.samples * variant.asks)
        for name, variant in config.variants.items()
    }
    few = {name: count for name, count in counts.items() if 0 < count < TONE_TEXTS}
    if not few:
        return []
    there = " to ".join(str(count) for count in sorted({min(few.values()), max(few.values())}))
    return [
        f"variants: verdicts on comparisons with {', '.join(few)} will be about the texts used alone: a tone takes "
        f"{TONE_TEXTS} texts that have a question (there are {there}); add texts, or raise dataset.samples"
    ]


def lone_judges(config: Config) -> list[str]:
    """Return a warning for each judge that no other one can be compared with."""
    judges = [judge for judge in config.judges if not judge.guess]
    traits = Counter(judge.trait for judge in judges)
    return [
        f"graders.{judge.outcome}: one judge alone, so that nothing says how far another would agree; add a judge with "
        "another model or rubric and the same trait"
        for judge in judges
        if traits[judge.trait] == 1
    ]
