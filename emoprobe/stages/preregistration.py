"""Before there is an answer: what will be tested."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

from emoprobe.analysis.preregistration import analysis_plan
from emoprobe.analysis.probes.probe_design import probe_plan
from emoprobe.analysis.steering.preregistration import planned_tests
from emoprobe.analysis.trajectory_table import find_pairs
from emoprobe.config.experiment import Config
from emoprobe.conversations.variants import variant_texts
from emoprobe.models.source import ModelCard
from emoprobe.models.tokens import count_tokens
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.preregistration import append_registration
from emoprobe.stages.analysis_code import analysis_code


def write_plan(config: Config, layout: Layout) -> None:
    """Write `analysis_plan.json`; the model has been prepared."""
    directory = Path(ModelCard.read(layout.model).path)
    # A model that only others' servers hold has no tokenizer here.
    lengths = _text_lengths(config, directory) if directory.is_dir() else None
    probes, steering = probe_plan(config), planned_tests(config)
    plan = analysis_plan(
        config,
        lengths,
        None if probes is None else probes.values(),
        None if steering is None else steering.values(),
        analysis_code(),
    )
    append_registration(layout.registrations, plan, answers=bool(find_pairs(layout.root)))
    atomic.write_json(layout.plan, plan.values())


def _text_lengths(config: Config, model: Path) -> dict[str, list[int]]:
    """Return the number of tokens of each text of each variant; the tokenizer is loaded once."""
    texts = {name: variants for name in config.variants if (variants := variant_texts(config, name))}
    if not texts:
        return {}
    counts = iter(count_tokens(list(chain.from_iterable(texts.values())), model))
    return {name: list(islice(counts, len(variants))) for name, variants in texts.items()}
