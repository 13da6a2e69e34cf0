"""Whether everything that an experiment has is whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scripts.lib import activations
from scripts.lib.paths import Layout
from scripts.lib.trajectories import DamagedError, read_json, read_messages


def check_trajectory(layout: Layout, variant: str, sample: str) -> tuple[list[str], list[int] | None]:
    """What is wrong with a trajectory's files, and its token ids where they can be read."""
    folder = layout.pair(variant, sample)
    problems: list[str] = []
    tokens: list[int] | None = None
    try:
        messages = read_messages(folder / "trajectory.jsonl")
        state = read_json(folder / "agent_state.json")
        tokens = state["prompt_token_ids"] + state["completion_token_ids"]
        opening = state["request"]["messages"]
        if [message.get("content") for message in messages[:-1]] != [message.get("content") for message in opening]:
            problems.append(
                f"{folder}: trajectory.jsonl and agent_state.json disagree; delete the folder and run again"
            )
    except DamagedError as error:
        problems.append(str(error))
    except (KeyError, TypeError, AttributeError) as error:
        problems.append(f"{folder / 'agent_state.json'} is damaged (no {error}); delete it and run again")
    try:
        summary = read_json(folder / "sample.json")
        if (summary["variant"], summary["sample_id"]) != (variant, sample):
            problems.append(f"{folder / 'sample.json'} belongs to another pair; delete it and run again")
    except DamagedError as error:
        problems.append(str(error))
    except (KeyError, TypeError) as error:
        problems.append(f"{folder / 'sample.json'} is damaged (no {error}); delete it and run again")
    return problems, tokens


def verify(layout: Layout, pairs: Iterable[tuple[str, str]], *, captured: bool) -> dict[str, Any]:
    """Check every pair: `checked` pairs, and `problems`, one line each, which name the file and what to do."""
    entries: dict[str, Any] = {}
    problems: list[str] = []
    if captured:
        try:
            entries = read_json(layout.manifest)
        except DamagedError as error:
            problems.append(str(error))
    checked = 0
    for variant, sample in pairs:
        checked += 1
        found, tokens = check_trajectory(layout, variant, sample)
        problems += found
        if captured:
            folder, entry = layout.activations(variant, sample), entries.get(f"{variant}/{sample}")
            if entry is None and entries:
                problems.append(f"{layout.manifest}: has no entry for {variant}/{sample}; delete it and run again")
            problems += activations.check(folder, entry, tokens)
    return {"checked": checked, "problems": problems}
