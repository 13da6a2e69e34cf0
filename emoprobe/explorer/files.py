"""The explorer's data: scripts that each hand one value to the page, as pages from a file system cannot fetch.

`index.js` has what the first view shows. A page loads the others when it needs them: the conversations of some
questions in `c0.js`, `c1.js` …, steered ones in `t0.js` …, projections of activations at positions in `a0.js` … and at
tokens in `k0.js` …, the words to search in `s….js`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import is_format
from emoprobe.explorer.conversations import Conversation, outcome, read_conversation, shown_judgement
from emoprobe.explorer.projections import FittedDirections, Projections, fitted_directions
from emoprobe.explorer.scripts import MAX_BYTES, Pages, Scripts, Write
from emoprobe.explorer.search import WordIndex
from emoprobe.explorer.steered import Steered
from emoprobe.explorer.tokens import TokenProjections
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import SampleFile


def write_data(config: Config, layout: Layout, write: Write, limit: int = MAX_BYTES) -> None:
    """Write the data of an experiment's explorer from its tables, trajectories and activations.

    Args:
        config: the experiment.
        layout: its folder.
        write: called with the name and the content of each script.
        limit: bytes of all scripts together; what exceeds it is left out, and the page says so.

    Raises:
        DamagedError, ActivationError: a file is damaged; the message names it.
    """
    scripts = Scripts(write, limit)
    rows = plain_rows(read_table(layout.root, "trajectories"))
    variants = {name: place for place, name in enumerate(dict.fromkeys(row["variant"] for row in rows))}
    questions = {name: place for place, name in enumerate(sorted({row["sample_id"] for row in rows}, key=_natural))}
    rows.sort(key=lambda row: (questions[row["sample_id"]], row["draw"], variants[row["variant"]]))
    samples = {name: _sample(layout, name) for name in questions}
    words, pages = WordIndex(), Pages(scripts, "c", with_texts)
    shown: list[list[Any]] = []
    number = 0
    for name, group in groupby(rows, key=lambda row: row["sample_id"]):
        place, entries, first = questions[name], [], None
        for row in group:
            first = first or row
            folder = layout.pair(row["variant"], draw_id(name, row["draw"]))
            conversation = read_conversation(folder, row, samples[name].choices)
            judged = (layout.judgement(one.outcome, row["variant"], folder.name) for one in config.judges)
            conversation.judgements.extend(shown_judgement(path) for path in judged if path.exists())
            words.add_row(number, conversation.texts())
            entries.append((number, conversation))
            number += 1
        assert first is not None
        words.add_question(place, first["question"] or "")
        shown.append(_question(name, first, samples[name]))
        pages.add(place, entries, sum(_size(conversation) for _, conversation in entries))
    pages.flush()
    notes = pages.left_out("conversations", [*questions])
    shards = words.shards()
    searched = [name for name, entries in shards.items() if scripts.add(f"s{name}", entries)]
    if len(searched) < len(shards):
        notes.append(f"The index of words is incomplete, as the explorer is limited to {limit / 1e6:,.0f} MB.")
    # Files of another kind are left from another config.
    steered = Steered.read(layout, questions, samples) if config.steering.enabled else None
    directions = fitted_directions(layout) if config.has_probes else FittedDirections()
    inside = Projections.read(layout, rows, questions, directions)
    every_token = config.capture.enabled and config.capture.positions == "all"
    tokens = None
    if config.features.enabled or every_token:
        reference = references_of(variants, config.analysis.references)[-1:]
        tokens = TokenProjections.read(layout, rows, questions, directions, reference, config.features.enabled)
    index = {
        "experiment": config.experiment.name,
        "model": config.model.source if "source" in config.model.model_fields_set else None,
        "variants": [[name, config.variants[name].valence if name in config.variants else None] for name in variants],
        "formats": [place for name, place in variants.items() if is_format(name)],
        "references": [variants[name] for name in references_of(variants, config.analysis.references)],
        "questions": shown,
        "rows": _columns(rows, variants, questions),
        "pages": [pages.places[place] for place in range(len(questions))],
        "shards": searched,
        "steering": steered.write(Pages(scripts, "t", with_texts), notes) if steered else None,
        "inside": inside.write(Pages(scripts, "a"), scripts, notes, [*questions]) if inside else None,
        "tokens": tokens.write(Pages(scripts, "k"), notes, [*questions]) if tokens else None,
        "notes": notes,
    }
    scripts.add("index", index, needed=True)


def with_texts(entries: Iterable[tuple[int, Conversation]]) -> dict[str, Any]:
    """Return conversations as plain values, each text once."""
    numbers: dict[str, int] = {}
    rows = []
    for number, conversation in entries:
        messages = [message.values(numbers.setdefault(message.text, len(numbers))) for message in conversation.messages]
        marks: dict[str, Any] = {"r": conversation.response, "p": conversation.tone, "q": conversation.question}
        marks["a"] = conversation.answer
        marks["j"] = conversation.judgements or None
        known = {key: value for key, value in marks.items() if value is not None}
        rows.append({"n": number, "m": messages, **known, "f": conversation.facts})
    return {"texts": list(numbers), "rows": rows}


def _size(conversation: Conversation) -> int:
    texts = [len(message.text) + len(message.reasoning) for message in conversation.messages]
    return 300 + sum(texts) + sum(len(part) for judgement in conversation.judgements for part in judgement)


def _natural(name: str) -> tuple[str, int, str]:
    """A key that orders names by the number at their end."""
    match = re.fullmatch(r"(.*?)(\d{1,18})", name, re.ASCII | re.DOTALL)
    return (match[1], int(match[2]), name) if match else (name, 0, name)


def _sample(layout: Layout, name: str) -> SampleFile:
    path = layout.sample(name)
    return SampleFile.read(path) if path.exists() else SampleFile()


def _question(name: str, row: dict[str, Any], sample: SampleFile) -> list[Any]:
    """Id, text, gold answer, group and the options of a question."""
    text = (row["question"] or "")[:2000]
    return [name, text, row["gold"], row["group"], *([sample.choices] if sample.choices else [])]


def _columns(rows: list[dict[str, Any]], variants: dict[str, int], questions: dict[str, int]) -> dict[str, Any]:
    """Columns of the trajectories, one entry each: numbers in lists, letters in strings."""
    answers: dict[str, int] = {}
    extracted = ["" if row["extracted"] is None else row["extracted"][:40] for row in rows]
    return {
        "v": [variants[row["variant"]] for row in rows],
        "q": [questions[row["sample_id"]] for row in rows],
        "d": [row["draw"] for row in rows],
        "o": "".join(map(outcome, rows)),
        "t": "".join("1" if row["truncated"] else "0" for row in rows),
        "k": [row["completion_tokens"] for row in rows],
        "x": [answers.setdefault(text, len(answers)) for text in extracted],
        "answers": list(answers),
    }
