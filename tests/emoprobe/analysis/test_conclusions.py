"""Each verdict has one reason, which follows from the numbers of a row and agrees with the verdict in the table."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from emoprobe.analysis.conclusion import Conclusion
from emoprobe.analysis.features.conclusion import FeatureReason, conclude_tone
from emoprobe.analysis.limits import LimitKind
from emoprobe.analysis.paired_tests import ContrastReason, Wording, conclude_contrast
from emoprobe.analysis.probes.probe_design import ProbeReason, conclude_probe
from emoprobe.analysis.steering.direction_tests import DirectionReason, conclude_direction
from emoprobe.analysis.steering.mediation import MediationReason, conclude_mediation
from emoprobe.report.statements.notes import PHRASES
from emoprobe.report.verdicts import MEANINGS
from emoprobe.results.statement import Verdict

MARGIN = 0.1
CONTRAST = {"difference": 0.02, "low": -0.05, "high": 0.09, "p_holm": 0.4, "p_equivalent_holm": 0.01, "n": 40}
VALENCE = {"target": "valence", "reason": None, "auroc": 0.9, "p": 0.02, "gain": 0.2, "n": 80}
CORRECT = {
    "target": "correct", "reason": None, "auroc": 0.9, "p": 0.02, "p_permuted": 0.02, "added": 0.1, "added_low": 0.04,
    "added_high": 0.2, "added_untruncated": 0.1, "n": 80,
}  # fmt: skip
WITHIN = {name: value for name, value in CORRECT.items() if name != "added_untruncated"} | {"target": "correct_within"}
DIRECTION = {"reason": None, "estimate": -0.5, "low": -0.8, "high": -0.2, "p_holm": 0.05, "n": 20}
ABLATION = {"n": 20, "share": 0.5, "change": 1.0, "low": 0.5, "high": 1.5}
FEATURE = {
    "method": "autoencoder", "p": 0.001, "differs": True, "auroc": 0.9, "fitted": 2.0, "difference": 0.5, "low": 0.2,
    "high": 0.8, "p_tone": 0.01, "n": 20,
}  # fmt: skip
RANDOM = FEATURE | {"method": "random", "auroc": 0.6}


@pytest.mark.parametrize(
    ("conclusion", "reason"),
    [
        (conclude_contrast(CONTRAST | {"verdict": "different"}, MARGIN), ContrastReason.RAISES),
        (conclude_contrast(CONTRAST | {"verdict": "different", "difference": -0.2}, MARGIN), ContrastReason.LOWERS),
        (conclude_contrast(CONTRAST | {"verdict": "equivalent"}, MARGIN), ContrastReason.WITHIN_MARGIN),
        (conclude_contrast(CONTRAST | {"verdict": "equivalent", "high": 0.1}, MARGIN), ContrastReason.NEAR_MARGIN),
        (conclude_contrast(CONTRAST | {"verdict": "different_here"}, MARGIN), ContrastReason.RAISES_HERE),
        (conclude_contrast(CONTRAST | {"verdict": "equivalent_here"}, MARGIN), ContrastReason.WITHIN_MARGIN_HERE),
        (
            conclude_contrast(CONTRAST | {"verdict": "equivalent_here", "high": 0.1}, MARGIN),
            ContrastReason.NEAR_MARGIN_HERE,
        ),
        (conclude_contrast(CONTRAST | {"verdict": "note"}, MARGIN), ContrastReason.NOT_TESTED),
        (conclude_contrast(CONTRAST | {"verdict": "undecided"}, MARGIN), ContrastReason.INCONCLUSIVE),
        (conclude_contrast(CONTRAST | {"verdict": "undecided", "low": None}, MARGIN), ContrastReason.NO_INTERVAL),
        (conclude_probe(VALENCE), ProbeReason.READABLE),
        (conclude_probe(VALENCE | {"p": 0.06}), ProbeReason.CHANCE),
        (conclude_probe(VALENCE | {"p": None}), ProbeReason.NOT_SEPARABLE),
        (conclude_probe(VALENCE | {"reason": "too few"}), ProbeReason.OUT_OF_REACH),
        (conclude_probe(VALENCE | {"auroc": None}), ProbeReason.NOT_PROBED),
        (conclude_probe(VALENCE | {"target": "variant"}), ProbeReason.MANIPULATION_CHECK),
        (conclude_probe(CORRECT), ProbeReason.READABLE),
        (conclude_probe(CORRECT | {"p": 0.5, "p_permuted": 0.5}), ProbeReason.CHANCE),
        (conclude_probe(CORRECT | {"p": 1.0, "added_untruncated": 0.0}), ProbeReason.NO_GAIN),
        (conclude_probe(CORRECT | {"p": 0.1, "added_low": -0.1}), ProbeReason.INTERVAL_INCLUDES_0),
        (conclude_probe(CORRECT | {"p": 0.1}), ProbeReason.TRUNCATED_ONLY),
        (conclude_probe(WITHIN), ProbeReason.READABLE),
        (conclude_probe(WITHIN | {"p": 0.1, "added_low": -0.1}), ProbeReason.INTERVAL_INCLUDES_0),
        (conclude_direction(DIRECTION), DirectionReason.LOWERS),
        (conclude_direction(DIRECTION | {"estimate": 0.5, "low": 0.1, "high": 0.9}), DirectionReason.RAISES),
        (conclude_direction(DIRECTION | {"high": 0.1}), DirectionReason.INTERVAL_INCLUDES_0),
        (conclude_direction(DIRECTION | {"p_holm": 0.06}), DirectionReason.CONTROLS_AS_FAR),
        (conclude_direction(DIRECTION | {"reason": "too few"}), DirectionReason.OUT_OF_REACH),
        (conclude_direction({"reason": "too few"}), DirectionReason.NOT_COMPARED),
        (conclude_mediation(ABLATION), MediationReason.SHARE),
        (conclude_mediation(ABLATION | {"share": None}), MediationReason.EFFECT_NOT_SHOWN),
        (conclude_mediation(ABLATION | {"n": 0}), MediationReason.NO_QUESTIONS),
        (conclude_tone(pd.DataFrame([FEATURE, RANDOM])), FeatureReason.SEPARATES),
        (conclude_tone(pd.DataFrame([FEATURE, RANDOM | {"auroc": 0.9}])), FeatureReason.RANDOM_AS_WELL),
        (conclude_tone(pd.DataFrame([FEATURE | {"differs": False}, RANDOM])), FeatureReason.NONE_DIFFERS),
        (conclude_tone(pd.DataFrame([FEATURE | {"p": None}])), FeatureReason.NOT_TESTED),
    ],
)
def test_the_reason_follows_from_the_numbers(conclusion: Conclusion, reason: Any) -> None:
    assert conclusion.reason is reason
    assert conclusion.verdict in MEANINGS
    if conclusion.verdict in (Verdict.FOUND, Verdict.DIFFERENT) and conclusion.low is not None:
        assert conclusion.p is not None


def test_wordings_limits_and_verdicts_are_complete() -> None:
    assert [Wording.of("joy", texts, "texts") for texts in (0, 1, 2, 8)] == [
        Wording.UNKNOWN_TEXTS, Wording.ONE_TEXT, Wording.THESE_TEXTS, Wording.THESE_TEXTS,
    ]  # fmt: skip
    assert Wording.of("joy", 24, "tone") is Wording.TONE
    assert Wording.of("control", 0, "tone") is Wording.NO_TEXT
    assert set(PHRASES) == set(LimitKind)
    assert set(MEANINGS) == set(Verdict)
