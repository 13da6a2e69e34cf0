"""Every stage in a folder in the trajectory contract, whoever made it; no model and no server is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoprobe.analysis.steering_table import find_steered, steering_table
from emoprobe.analysis.trajectory_table import find_pairs, nothing_there
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.science.capture import Capture
from emoprobe.config.science.graders import complete
from emoprobe.config.science.prompt import Variant
from emoprobe.config.section import CONTROL, FILLER
from emoprobe.conversations.samples import known_pairs
from emoprobe.report.figures import table_rules
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.activations import find_pairs as find_captured
from emoprobe.results.layout import OUTCOMES_FILE, Layout
from emoprobe.results.tables import write_table
from emoprobe.stages.behaviour import analyze_behaviour
from emoprobe.stages.explorer import write_explorer
from emoprobe.stages.figures import draw
from emoprobe.stages.report import write_report
from emoprobe.stages.steering import analyze_steering
from emoprobe.stages.trajectories import tabulate
from emoprobe.steering.grid import directions_of, named_direction

STEERING_RULES = ("tabulate_steering", "analyze_steering")


class NothingThereError(ValueError):
    """A folder without a single trajectory; the message says what one would look like."""


def analyze_folder(folder: Path) -> Layout:
    """Make tables, probes, figures, explorer and report inside a folder, from the trajectories and activations there.

    What the folder does not say is unknown: without `experiment.yaml` every variant is known by its name alone. With
    one, trajectories that it does not contain are left out.

    Raises:
        NothingThereError: it holds no trajectory, or none that its config contains.
        ConfigError: its `experiment.yaml` cannot be used.
        DamagedError, ActivationError: a file is damaged; the message names it.
    """
    config, layout, pairs = _read(folder)
    tabulate(config, layout, pairs)
    analyze_behaviour(config, layout)
    if config.has_probes:
        from emoprobe.stages.probes import probe

        probe(config, layout)
    # What was steered is there, whatever the config says; tables of what is not there any more are out of date.
    rules = [rule for rule in table_rules(config) if rule not in STEERING_RULES]
    rules += STEERING_RULES if _steering(config, layout) else ()
    draw(config, layout, rules=rules)
    write_explorer(config, layout)
    write_report(config, layout, rules)
    return layout


def explore_folder(folder: Path) -> Layout:
    """Make the explorer inside a folder of conversations, and the table of trajectories that it needs if it is missing.

    Raises:
        NothingThereError, ConfigError, DamagedError, ActivationError: see `analyze_folder`.
    """
    config, layout, pairs = _read(folder)
    if not layout.table("trajectories").exists():
        tabulate(config, layout, pairs)
    write_explorer(config, layout)
    return layout


def _read(folder: Path) -> tuple[Config, Layout, list[tuple[str, str]]]:
    """Return the config of a folder, its layout, and variant and name of each trajectory in the order of the config."""
    layout = Layout(folder)
    there = find_pairs(folder)
    if not there:
        raise NothingThereError(nothing_there(folder))
    said = load_config(folder) if layout.resolved_yaml.exists() else Config()
    pairs = known_pairs(said, there)
    if not pairs:
        variant, name = there[0]
        raise NothingThereError(
            f"{folder}: experiment.yaml contains none of the {len(there)} trajectories there, such as {variant}/{name}"
        )
    config = _config(said, layout, pairs)
    places = {variant: place for place, variant in enumerate(config.variants)}
    pairs.sort(key=lambda pair: (places.get(pair[0], len(places)), pair))
    return config, layout, pairs


def _steering(config: Config, layout: Layout) -> bool:
    """Make the tables of steered trajectories; False where there are none that are scored.

    The samples tell their gold answers.
    """
    steered = find_steered(layout)
    if not steered or not layout.sample("any").parent.is_dir():
        return False
    directions = {direction.name: direction for direction in directions_of(config)}
    for condition, _, _ in steered:
        name = condition.split("/")[0]
        if name not in directions:
            directions[name] = named_direction(name, config.variants)
    write_table(layout, "steering", steering_table(layout, steered, directions))
    analyze_steering(config, layout)
    return True


def _config(said: Config, layout: Layout, pairs: list[tuple[str, str]]) -> Config:
    """Return the folder's config, with values counted there in place of defaults.

    What it says of captures gives way to what lies there. Nothing is validated: whoever made the folder need not name
    variants as the workflow would, nor have a control.
    """
    there = {variant for variant, _ in pairs}
    names = [*(name for name in (CONTROL, FILLER) if name in there), *sorted(there - {CONTROL, FILLER})]
    drawn = [(variant, *layout.drawn(name)) for variant, name in pairs]
    asks = {name: variant.asks for name, variant in said.variants.items()}
    counted: dict[str, dict[str, Any]] = {
        "experiment": {"name": layout.root.resolve().name},
        "dataset": {"samples": len({sample for _, sample, _ in drawn})},
        "generation": {"draws": max(-(-draw // asks.get(variant, 1)) for variant, _, draw in drawn)},
    }
    update: dict[str, Any] = {}
    for section, values in counted.items():
        part = getattr(said, section)
        update[section] = part.model_copy(
            update={key: value for key, value in values.items() if key not in part.model_fields_set}
        )
    if "variants" not in said.model_fields_set:
        update["variants"] = dict.fromkeys(names, Variant())
    if "graders" not in said.model_fields_set and any((layout.pair(*pair) / OUTCOMES_FILE).exists() for pair in pairs):
        update["graders"] = complete(["number", "logprob"])
    config = said.model_copy(update=update)
    captured = find_captured(layout)
    if not captured:
        return config.model_copy(update={"capture": Capture(enabled=False)})
    read = (ActivationFolder.read(layout.activations(*pair)).metadata for pair in captured)
    first = next((metadata for metadata in read if metadata.error is None), None)
    if first is None:
        return config.model_copy(update={"capture": Capture(enabled=False)})
    positions = "all" if first.positions == "all" else first.position_names
    capture = config.capture.model_copy(update={"enabled": True, "positions": positions})
    return config.model_copy(update={"capture": capture})
