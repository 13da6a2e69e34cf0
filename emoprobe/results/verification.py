"""Check that everything an experiment has is whole, and that its files belong together."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emoprobe.results.activation_folder import METADATA
from emoprobe.results.judgement import Comparison, read_judgement
from emoprobe.results.layout import OUTCOMES_FILE, SCORES, Layout, condition_folder, split_draw_id
from emoprobe.results.manifest import Manifest
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.preregistration import Preregistration, read_registrations
from emoprobe.results.record import DamagedError, Record, read_json, unreadable
from emoprobe.results.trajectory import (
    MESSAGES,
    OUTCOME,
    STATE,
    AgentState,
    AnswerRecord,
    GoldProbability,
    Hashes,
    Measured,
    Message,
    Sample,
    Scores,
    message_text,
    read_messages,
    state_sha256,
    tokens_sha256,
)

UNEXPECTED = (AttributeError, KeyError, IndexError, TypeError, ValueError)  # of plain values of another form


class CheckedTrajectory(NamedTuple):
    """A trajectory and its problems; None where it cannot be read."""

    problems: list[str]
    tokens: list[int] | None
    state: AgentState | None
    outcome: AnswerRecord | None


def check_trajectory(folder: Path, variant: str, name: str, condition: str | None = None) -> CheckedTrajectory:
    """Check the three files of a trajectory, each alone and against the others.

    A record of an error is whole as well: it has an empty answer and no tokens.

    Args:
        folder: where they lie.
        variant: the variant that the folder is of.
        name: the folder's name.
        condition: the condition of a steered trajectory.
    """
    problems: list[str] = []
    tokens: list[int] | None = None
    state: AgentState | None = None
    outcome: AnswerRecord | None = None
    again = "delete the folder and run again"
    try:
        state = AgentState.read_file(folder / STATE)
        if _belongs_elsewhere(state.variant, state.sample_id, variant, name):
            problems.append(f"{folder / STATE} is of {state.variant}/{state.sample_id}; {again}")
        elif condition is not None and _condition(state) != condition:
            problems.append(f"{folder / STATE} is of {_condition(state)}, another condition; {again}")
        tokens = state.token_ids if state.error is None else []
        if tokens is None and state.backend != "api":
            raise DamagedError(folder / STATE, "it holds no token ids")
        counts = (state.usage.prompt_tokens, state.usage.completion_tokens)
        lengths = (len(state.prompt_token_ids or ()), len(state.completion_token_ids or ()))
        if (
            tokens is not None
            and state.error is None
            and any(count not in (None, length) for count, length in zip(counts, lengths, strict=True))
        ):
            problems.append(f"{folder / STATE}: the token ids are not as many as it counts; {again}")
    except DamagedError as error:
        problems.append(str(error))
    except UNEXPECTED as error:
        problems.append(f"{folder / STATE} holds a request that is none ({error!r}); {again}")
    try:
        messages = read_messages(folder / MESSAGES)
        if state is not None and not problems:
            problems += [f"{folder}: {problem}; {again}" for problem in _compared(messages, state)]
    except DamagedError as error:
        problems.append(str(error))
    except UNEXPECTED as error:
        problems.append(f"{folder / STATE} holds a request or response that is none ({error!r}); {again}")
    try:
        outcome = AnswerRecord.read_file(folder / OUTCOME)
        if _belongs_elsewhere(outcome.variant, outcome.sample_id, variant, name):
            problems.append(f"{folder / OUTCOME} is of {outcome.variant}/{outcome.sample_id}; {again}")
    except DamagedError as error:
        problems.append(str(error))
    if state is not None and state.hashes is not None and not problems:
        problems += _changed(folder, state.hashes)
    return CheckedTrajectory(problems, tokens, state, outcome)


def _belongs_elsewhere(variant: str | None, sample: str | None, here: str, name: str) -> bool:
    """Return whether a file names another pair than its folder; the first version left some names out."""
    return variant not in (None, here) or sample not in (None, name)


def _compared(messages: list[Message], state: AgentState) -> Iterator[str]:
    """List the contradictions between a conversation and the request and response that it was made from."""
    if messages[-1]["role"] != "assistant":
        yield f"{MESSAGES} does not end with the assistant's message"
        return
    answer = message_text(messages[-1])
    if state.error is not None and answer:
        yield f"has an answer, which {STATE} says it has not"
    opening = state.request.get("messages") or []
    choices = state.response.get("choices") or [{}]
    choice = choices[0]
    message = choice.get("message") or {}
    text = str(choice["text"]) if "text" in choice and not message.get("tool_calls") else message_text(message)
    begun = ""
    # With a prefill, the last message of the request begins the answer; a record of an error has no answer.
    unanswered = state.error is not None and len(opening) == len(messages)
    if opening and (state.prefill is not None or unanswered):
        begun, opening = str(opening[-1].get("content"))[: state.prefill], opening[:-1]
    same = answer.endswith(text) and (state.error is not None or answer.startswith(begun))
    if state.thought is not None and messages[-1].get("reasoning_content") is not None:
        same = text.endswith(messages[-1].get("content") or "")  # the thought is a field of its own
    if not same or [one.get("content") for one in messages[:-1]] != [one.get("content") for one in opening]:
        yield f"{MESSAGES} and {STATE} disagree"


def _condition(state: AgentState) -> str:
    """The folder of the condition that a request asked for."""
    edits = (state.request.get("ndif") or {}).get("steering") or []
    if not edits:
        return "none"
    edit = edits[0]
    layers = "+".join(map(str, edit["layers"]))
    return condition_folder(Path(edit["file"]).stem, edit["operation"], edit["phase"], layers, edit["dose"])


def _changed(folder: Path, hashes: Hashes) -> Iterator[str]:
    """Files of a trajectory that are not as they were written."""
    for name, expected in ((STATE, hashes.state), (MESSAGES, hashes.messages), (OUTCOME, hashes.outcome)):
        content = (folder / name).read_bytes()
        digest = state_sha256(json.loads(content)) if name == STATE else hashlib.sha256(content).hexdigest()
        if expected not in (None, digest):
            yield f"{folder / name} was changed after it was written (its hash is another); delete it and run again"


def check_scores(folder: Path) -> list[str]:
    """Check the scores of a steered trajectory, also against its answer."""
    try:
        scores, state = Scores.read_file(folder / SCORES), AgentState.read_file(folder / STATE)
    except DamagedError as error:
        return [str(error)]
    if scores.error is None and scores.tokens != len(state.completion_token_ids or []):
        return [f"{folder / SCORES}: was made from another answer than the folder's; delete it and run again"]
    if scores.sha256 is None:  # as version 0.2 wrote them
        return []
    return _changed_record(folder / SCORES, scores)


def check_outcomes(folder: Path, state: AgentState | None) -> list[str]:
    """Check what graders asked the model about a trajectory, also against its tokens."""
    path = folder / OUTCOMES_FILE
    try:
        outcomes = GoldProbability.read_file(path)
    except DamagedError as error:
        return [str(error)]
    ids = None if state is None else state.token_ids
    if ids is not None and outcomes.context_sha256 not in (None, tokens_sha256(ids[: outcomes.context_tokens])):
        return [f"{path}: was made from another answer than the folder's; delete it and run again"]
    return _changed_record(path, outcomes)


def check_judgement(
    path: Path, judge: str, variant: str, name: str, hashes: Mapping[tuple[str, str], Hashes | None]
) -> list[str]:
    """Check a judgement, also against the known hashes of the trajectories that it is of."""
    try:
        judgement = read_judgement(path)
    except DamagedError as error:
        return [str(error)]
    if (judgement.judge, judgement.variant, judgement.sample_id) != (judge, variant, name):
        return [f"{path} is of {judgement.judge}/{judgement.variant}/{judgement.sample_id}; delete it and run again"]
    judged = {(variant, name): judgement.messages_sha256}
    if isinstance(judgement, Comparison):
        judged[judgement.compare_with, judgement.compared_id] = judgement.compared_sha256
    for pair, made_from in judged.items():
        known = hashes.get(pair)
        if known is not None and made_from not in (None, known.messages):
            return [f"{path}: was made from another answer than that of {'/'.join(pair)}; delete it and run again"]
    return _changed_record(path, judgement)


def _changed_record(path: Path, record: Measured) -> list[str]:
    """Return a problem if a file is not as it was written."""
    if record.sha256 == record.content_sha256:
        return []
    return [f"{path} was changed after it was written (its hash is another); delete it and run again"]


@dataclass
class _SampleUses:
    """The trajectories of one sample: of how many, and which were made from another question or gold answer."""

    count: int = 0
    other_hash: int = 0
    other_text: list[Path] = field(default_factory=list)


class _Samples:
    """The questions of an experiment, each compared with the trajectories that were made from it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._read: dict[str, Sample | None] = {}
        self._uses: dict[str, _SampleUses] = defaultdict(_SampleUses)
        self.problems: list[str] = []

    def compare(self, name: str, folder: Path, checked: CheckedTrajectory) -> None:
        """Compare one trajectory with its sample."""
        sample_id = split_draw_id(name)[0]
        if sample_id not in self._read:
            self._read[sample_id] = self._sample(sample_id)
        sample, uses = self._read[sample_id], self._uses[sample_id]
        if sample is None or checked.problems:
            return
        uses.count += 1
        hashes = checked.state.hashes if checked.state is not None else None
        uses.other_hash += hashes is not None and hashes.sample not in (None, sample.sha256)
        recorded = checked.outcome.sample_data if checked.outcome is not None else None
        known = (sample.question, str(sample.answer))
        if recorded is not None and (recorded.question or known[0], str(recorded.answer or sample.answer)) != known:
            uses.other_text.append(folder)

    def _sample(self, sample_id: str) -> Sample | None:
        try:
            return Sample.read(self._layout.sample(sample_id))
        except DamagedError as error:
            self.problems.append(str(error))
            return None

    def all_problems(self) -> list[str]:
        """List problems: of a sample where all of its trajectories disagree with it, else of the trajectory."""
        for sample_id, uses in self._uses.items():
            path = self._layout.sample(sample_id)
            if uses.other_hash or (uses.count > 1 and len(uses.other_text) == uses.count):
                self.problems.append(
                    f"{path} is not what {uses.other_hash or uses.count} of its {uses.count} trajectories were "
                    "made from; delete it and run again"
                )
            else:
                self.problems += [
                    f"{folder / OUTCOME} and {path} disagree on question or answer; delete {folder} and run again, and "
                    f"{path} if that does not help"
                    for folder in uses.other_text
                ]
        return self.problems


def check_derived(layout: Layout) -> list[str]:
    """Check what was computed from trajectories and activations and is there: tables, directions, weights."""
    from emoprobe.results import activations
    from emoprobe.results.tables import read_table

    tables = sorted(layout.table("any").parent.glob("*.parquet"))
    problems = problems_of((path, lambda path: read_table(layout.root, path.stem)) for path in tables)
    problems += _config_problems(layout)
    tensors = [layout.directions(), layout.feature_directions()]
    tensors += sorted(layout.direction("any").parent.glob("*.safetensors"))
    tensors += sorted(layout.autoencoder("any").parent.glob("*/*.safetensors"))
    problems += problems_of((path, activations.read_tensors) for path in tensors)
    # A folder without metadata is not made yet: a capture may be at work in it, or was interrupted there.
    tokens = sorted(path.parent for path in layout.tokens("any", "any").parents[1].glob(f"*/*/{METADATA}"))
    return problems + [problem for folder in tokens for problem in activations.check(folder)]


def _config_problems(layout: Layout) -> list[str]:
    """Check that the resolved config is the same in both of its files."""
    if not (layout.resolved_yaml.exists() and layout.resolved_json.exists()):
        return []
    from emoprobe.config.errors import ConfigError
    from emoprobe.config.reading import read_yaml

    try:
        same = read_yaml(layout.resolved_yaml) == read_json(layout.resolved_json)
    except DamagedError:  # which is named as such
        return []
    except ConfigError:
        same = False
    return [] if same else [f"{layout.resolved_yaml} and {layout.resolved_json} disagree; delete both and run again"]


def verify(
    layout: Layout,
    pairs: Iterable[tuple[str, str]],
    captured: Iterable[tuple[str, str]],
    steered: Iterable[tuple[str, str, str]] = (),
    *,
    outcomes: bool = False,
    judged: Iterable[tuple[str, str, str]] = (),
) -> Verification:
    """Check every pair, the activations of those that were `captured`, here and in object storage, every `steered`
    trajectory, the questions, and whatever else is there already.

    A steered one is named by its condition, variant and folder, a judgement (`judged`) by judge, variant and folder.
    With `outcomes`, every pair has a file of outcomes.

    Raises:
        ActivationError: object storage cannot be reached.
    """
    from emoprobe.results import activations  # with NumPy, which a plan does without

    with_activations = set(captured)
    entries = {}
    problems = check_records(layout)
    if with_activations:
        try:
            entries = Manifest.read(layout.manifest).root
        except DamagedError as error:
            problems += [] if str(error) in problems else [str(error)]
    checked = unhashed = 0
    samples = _Samples(layout)
    hashes: dict[tuple[str, str], Hashes | None] = {}
    for variant, sample in pairs:
        checked += 1
        folder = layout.pair(variant, sample)
        trajectory = check_trajectory(folder, variant, sample)
        problems += trajectory.problems
        unhashed += trajectory.state is not None and trajectory.state.hashes is None
        samples.compare(sample, folder, trajectory)
        problems += check_outcomes(folder, trajectory.state) if outcomes else []
        hashes[variant, sample] = None if trajectory.state is None else trajectory.state.hashes
        if (variant, sample) in with_activations:
            folder, entry = layout.activations(variant, sample), entries.get(f"{variant}/{sample}")
            if entry is None and entries:
                problems.append(f"{layout.manifest}: has no entry for {variant}/{sample}; delete it and run again")
            problems += activations.check(folder, entry, trajectory.tokens)
    for judge, variant, sample in judged:
        problems += check_judgement(layout.judgement(judge, variant, sample), judge, variant, sample, hashes)
    if layout.shards.exists():
        from emoprobe.storage.remote import check_stored

        problems += check_stored(layout, entries)
    for condition, variant, name in steered:
        checked += 1
        folder = layout.steered(condition, variant, name)
        trajectory = check_trajectory(folder, variant, name, condition)
        problems += [*trajectory.problems, *check_scores(folder)]
        unhashed += trajectory.state is not None and trajectory.state.hashes is None
        samples.compare(name, folder, trajectory)
    named = {line.split(" is damaged")[0] for line in problems}
    problems += [line for line in check_derived(layout) if line.split(" is damaged")[0] not in named]
    problems += samples.all_problems()
    return Verification(checked=checked, problems=problems, unhashed=unhashed)


MAX_END = 64  # bytes at the end of a file in which its last word is looked for


class Verification(Record):
    """`verified.json`: how many trajectories were checked, and what is wrong, one line each, with the file and what to
    do.

    `unhashed` of them recorded no hashes, as in version 0.2: their files were only compared with each other.
    """

    checked: int
    problems: list[str]
    unhashed: int = 0


def check_records(layout: Layout) -> list[str]:
    """Check the records, tables and figures of an experiment; of large files only the end is read."""
    readers: dict[Path, Callable[[Path], Any]] = {
        layout.model: _with_keys("source", "path"),
        layout.plan: Preregistration.read_file,
        layout.registrations: read_registrations,
        layout.metadata: RunMetadata.read_file,
        layout.resolved_json: _with_keys("experiment"),
        layout.manifest: read_json,
        layout.shards: read_json,
        layout.pushed: read_json,
        layout.pulled: read_json,
        layout.verified: Verification.read_file,
        layout.report: _with_keys("statements"),
    }
    problems = problems_of((path, read) for path, read in readers.items())
    ends = [(path, b"PAR1") for path in sorted(layout.table("any").parent.glob("*.parquet"))]
    ends += [(path, b"</svg>") for path in sorted(layout.figure("any").parent.glob("*.svg"))]
    return problems + problems_of((path, _ending(end)) for path, end in [*ends, (layout.report_html, b"</html>")])


def problems_of(files: Iterable[tuple[Path, Callable[[Path], Any]]]) -> list[str]:
    """One line for each file that is there and cannot be read."""
    problems = []
    for path, read in files:
        try:
            if path.exists():
                read(path)
        except DamagedError as error:
            if path.exists():  # Snakemake may have removed it meanwhile, to make it again
                problems.append(str(error))
    return problems


def _with_keys(*keys: str) -> Callable[[Path], Any]:
    def read(path: Path) -> None:
        values = read_json(path)
        missing = [key for key in keys if not isinstance(values, dict) or key not in values]
        if missing:
            raise DamagedError(path, f"it lacks {', '.join(missing)}")

    return read


def _ending(end: bytes) -> Callable[[Path], Any]:
    def read(path: Path) -> None:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - MAX_END))
                content = file.read()
        except OSError as error:
            raise unreadable(path, error) from None
        if not content.rstrip().endswith(end):
            raise DamagedError(path, f"it does not end with {end.decode()}")

    return read
