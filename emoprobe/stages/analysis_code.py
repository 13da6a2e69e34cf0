"""Digests of the code of the analysis, which a preregistration records and a report compares."""

from __future__ import annotations

from collections.abc import Collection

from emoprobe.workflow.code import code_digest

# Rule → the module whose code decides its verdicts.
ANALYSIS = {
    "tabulate_trajectories": "emoprobe.stages.trajectories",
    "analyze_behaviour": "emoprobe.stages.behaviour",
    "probe_activations": "emoprobe.stages.probes",
    "analyze_steering": "emoprobe.stages.steering",
    "analyze_features": "emoprobe.stages.features.analyze",
}


def analysis_code(rules: Collection[str] = ANALYSIS.keys()) -> dict[str, str]:
    """Return the digest of the code that each step of the analysis is made of, by the name of its rule.

    `rules` are those that an experiment has: code that it does not run decides nothing in it.
    """
    return {rule: code_digest(module) for rule, module in ANALYSIS.items() if rule in rules}
