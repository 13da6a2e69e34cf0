"""What was done in an experiment, for the first screen of its page: model, questions, variants, prompt and answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import CONTROL, is_format
from emoprobe.results.metadata import RunMetadata

SHOWN = 160  # characters of a text or a question
NAMED = 4  # variants that a sentence names; it counts more


def done(config: Config, report: dict[str, Any], metadata: RunMetadata) -> list[tuple[str, str]]:
    """Return what was done, as pairs of a heading and a description; what a folder does not say is left out."""
    model = report["model"]
    details = ", ".join(str(model[key]) for key in ("dtype", "revision") if model[key])
    asked = report["example"]
    entries = [
        ("Model", f"{model['id']} ({details})" if model["id"] and details else model["id"] or "unknown"),
        (
            "Questions",
            f"{report['samples']} of {dataset_name(config, 'unknown origin')}"
            + (f", such as “{short(asked)}”" if asked else ""),
        ),
        ("Variants", _variants(config, report)),
        ("Prompt", _prompt(config)),
        ("Turns", _turns(config)),
        ("Answers", _answers(config, report)),
        ("Activations", _activations(config, report)),
        ("Made", ", commit ".join(filter(None, [metadata.timestamp, (metadata.git_commit or "")[:12]]))),
        ("Plan", f"sha256 {report['plan_sha256'][:12]}" if report["plan_sha256"] else ""),
    ]
    return [(heading, text) for heading, text in entries if text]


def _variants(config: Config, report: dict[str, Any]) -> str:
    names = [row["variant"] for row in report["accuracy"]]
    references = references_of(names, config.analysis.references)
    formats = sum(map(is_format, names))
    others = [name for name in names if name not in references and not is_format(name)]
    valences = Counter(config.variants[name].valence for name in others if name in config.variants)
    kinds = ", ".join(f"{count} {valence}" for valence, count in valences.items() if valence)
    texts = {row["texts"] for row in report["accuracy"] if row["texts"]}
    parts = [f"{len(others)} ({kinds})" if kinds else str(len(others))]
    if references:
        parts.append(f"compared with {' and '.join(reversed(references))}")
    parts += [f"{name} asked {variant.asks} times" for name, variant in config.variants.items() if variant.asks > 1]
    if formats:
        parts.append(f"{formats} other format{'' if formats == 1 else 's'} of the prompt")
    if texts:
        most = f" to {max(texts)}" if len(texts) > 1 else ""
        parts.append(f"{min(texts)}{most} text{'' if texts == {1} else 's'} each")
    return ", ".join(parts)


def _prompt(config: Config) -> str:
    parts = []
    if _known(config, "prompt", "system"):
        parts.append(f"system message “{short(config.prompt.system)}”" if config.prompt.system else "no system message")
    examples = len(config.prompt.examples)
    if examples:
        parts.append(f"{examples} solved example{'' if examples == 1 else 's'}")
    return ", ".join(parts)


def _turns(config: Config) -> str:
    """Return what the user says after the question; empty where a conversation has one turn."""
    turns = config.conversation.turns
    said = ", ".join(f"“{short(turn.text)}”" for turn in turns[:NAMED])
    more = f" and {len(turns) - NAMED} more" if len(turns) > NAMED else ""
    return f"{1 + len(turns)}: the question, then {said}{more}" if turns else ""


def _answers(config: Config, report: dict[str, Any]) -> str:
    parts = [str(report["trajectories"])]
    if _known(config, "generation", "temperature"):
        temperature = config.generation.temperature
        parts.append("greedy" if temperature == 0 else f"temperature {temperature:g}")
    if _known(config, "generation", "max_tokens"):
        parts.append(f"at most {config.generation.max_tokens} tokens")
    if report["truncated"]:
        parts.append(f"{report['truncated']:.1%} cut off")
    return ", ".join(parts)


def _activations(config: Config, report: dict[str, Any]) -> str:
    if not report["probes"] or not _known(config, "capture", "positions"):
        return ""
    capture = config.capture
    positions = "all tokens" if capture.positions == "all" else ", ".join(map(str, capture.positions))
    count = report["samples"] if capture.samples is None else min(capture.samples, report["samples"])
    return (
        f"{count} questions, {capture.layers if capture.layers == 'all' else len(capture.layers)} layers, {positions}"
    )


def _known(config: Config, section: str, key: str) -> bool:
    """Return whether a folder's config says this itself, so that it is no default of ours."""
    return section in config.model_fields_set and key in getattr(config, section).model_fields_set


def dataset_name(config: Config, unknown: str = "the questions") -> str:
    """Return the source of the questions, or other words where the folder does not say it."""
    return str(config.dataset.source) if _known(config, "dataset", "source") else unknown


def example_of(config: Config, name: str) -> str:
    """Return a text of a variant in quotes, or what the variant does instead; empty where nothing is known."""
    variant = config.variants.get(name)
    if variant is None:
        return ""
    if variant.text or variant.texts:
        return f"“{short(variant.text or (variant.texts or [''])[0])}”"
    if variant.scramble:
        return f"the words of {variant.scramble}, shuffled"
    return f"function {variant.transform}" if variant.transform else "no text" if name == CONTROL else ""


def short(text: Any) -> str:
    """Return a text in one line, cut at `SHOWN` characters."""
    words = " ".join(str(text).split())
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1].rstrip()}…"
