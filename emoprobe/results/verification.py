"""Whether everything that an experiment has is whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emoprobe.results import activations
from emoprobe.results.layout import SCORES, Layout
from emoprobe.results.manifest import Manifest
from emoprobe.results.record import DamagedError, Record
from emoprobe.results.scores import Scores
from emoprobe.results.trajectory import MESSAGES, OUTCOME, STATE, AgentState, Outcome, message_text, read_messages


class Verification(Record):
    """`verified.json`: how many pairs were checked, and what is wrong, one line each, with the file and what to do."""

    checked: int
    problems: list[str]


def check_trajectory(folder: Path, variant: str, sample: str) -> tuple[list[str], list[int] | None]:
    """What is wrong with a trajectory's files, and its token ids where they can be read.

    A record of an error is whole as well: it has an empty answer and no tokens.
    """
    problems: list[str] = []
    tokens: list[int] | None = None
    try:
        messages = read_messages(folder / MESSAGES)
        state = AgentState.read_file(folder / STATE)
        tokens = state.token_ids if state.error is None else []
        if state.error is not None and message_text(messages[-1]):
            problems.append(f"{folder}: has an answer, which {STATE} says it has not; delete the folder and run again")
        if tokens is None:
            raise DamagedError(folder / STATE, "it holds no token ids")
        opening = state.request.get("messages") or []
        begun = ""
        if state.prefill is not None:  # the last message is the beginning of the answer
            begun, opening = str(opening[-1].get("content") if opening else "")[: state.prefill], opening[:-1]
        same = [message.get("content") for message in messages[:-1]] == [message.get("content") for message in opening]
        if not same or (state.error is None and not message_text(messages[-1]).startswith(begun)):
            problems.append(f"{folder}: {MESSAGES} and {STATE} disagree; delete the folder and run again")
    except DamagedError as error:
        problems.append(str(error))
    try:
        outcome = Outcome.read_file(folder / OUTCOME)
        if (outcome.variant, outcome.sample_id) != (variant, sample):
            problems.append(f"{folder / OUTCOME} belongs to another pair; delete it and run again")
    except DamagedError as error:
        problems.append(str(error))
    return problems, tokens


def check_scores(folder: Path) -> list[str]:
    """What is wrong with the scores of a steered trajectory, and with what it says of its edits."""
    try:
        scores, state = Scores.read_file(folder / SCORES), AgentState.read_file(folder / STATE)
    except DamagedError as error:
        return [str(error)]
    if scores.error is None and scores.tokens != len(state.completion_token_ids or []):
        return [f"{folder / SCORES}: was made from another answer than the folder's; delete it and run again"]
    return []


def verify(
    layout: Layout,
    pairs: Iterable[tuple[str, str]],
    captured: Iterable[tuple[str, str]],
    steered: Iterable[tuple[str, str, str]] = (),
) -> Verification:
    """Check every pair, the activations of those that were `captured`, here and in object storage, and every `steered`
    trajectory.

    A steered one is named by its condition, variant and folder.

    Raises:
        ActivationError: object storage cannot be reached.
    """
    with_activations = set(captured)
    entries = {}
    problems: list[str] = []
    if with_activations:
        try:
            entries = Manifest.read(layout.manifest).root
        except DamagedError as error:
            problems.append(str(error))
    checked = 0
    for variant, sample in pairs:
        checked += 1
        found, tokens = check_trajectory(layout.pair(variant, sample), variant, sample)
        problems += found
        if (variant, sample) in with_activations:
            folder, entry = layout.activations(variant, sample), entries.get(f"{variant}/{sample}")
            if entry is None and entries:
                problems.append(f"{layout.manifest}: has no entry for {variant}/{sample}; delete it and run again")
            problems += activations.check(folder, entry, tokens)
    if layout.shards.exists():
        from emoprobe.storage.checking import check_stored

        problems += check_stored(layout, entries)
    for condition, variant, name in steered:
        checked += 1
        folder = layout.steered(condition, variant, name)
        problems += [*check_trajectory(folder, variant, name)[0], *check_scores(folder)]
    return Verification(checked=checked, problems=problems)
