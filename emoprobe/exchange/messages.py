"""Tables of messages in OpenAI's form: JSON lines, JSON, Parquet and CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emoprobe.exchange.conversation import Conversation, ExchangeError, json_lines, text_or_none
from emoprobe.results.trajectory import MESSAGE_FIELDS, Message

# Columns that are read by name, the first one that a row has.
COLUMNS = {
    "messages": ("messages", "conversation", "conversations"),
    "id": ("sample_id", "id", "question_id", "doc_id"),
    "gold": ("gold", "answer", "target"),
    "score": ("correct", "score"),
    "model": ("model",),
    "question": ("question",),
    "group": ("group",),
    "draw": ("draw", "epoch"),
    "finish_reason": ("finish_reason",),
    "started": ("started",),
    "seconds": ("seconds",),
    "failure": ("failure",),
}
USAGE = ("prompt_tokens", "completion_tokens")
BATCH = 256


def read_table(path: Path, score: str | None = None) -> Iterator[Conversation]:
    """Read conversations, one row each, with a column `messages`: a list of messages, or the same as JSON text.

    The last message of the assistant is the completion. In a JSON file, a list of messages is one conversation.

    Args:
        path: file that ends in `.jsonl`, `.json`, `.parquet` or `.csv`.
        score: column of a score; None: `correct` or `score`.

    Raises:
        ExchangeError: the file cannot be read, or a row has no messages; the message lists the columns.
    """
    for where, row in _rows(path):
        column = _first(row, "messages")
        if column is None:
            there = ", ".join(map(str, row)) or "none"
            raise ExchangeError(f"{where}: there is no column messages (columns there: {there})")
        messages = _messages(row[column], where)
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        named = {key: row.get(column) for key in COLUMNS if (column := _first(row, key)) is not None}
        scored = [score] if score is not None else [name for name in COLUMNS["score"] if row.get(name) is not None]
        if score is not None and score not in row:
            raise ExchangeError(f"{where}: there is no column {score!r} for --score (columns there: {', '.join(row)})")
        choices = row.get("choices")
        yield Conversation(
            where=where,
            fields={key: value for key, value in row.items() if key != column} | {"messages": messages},
            messages=messages,
            opening=answers[-1] if answers else len(messages),
            id=text_or_none(named.get("id")),
            draw=_integer(named.get("draw")),
            question=text_or_none(named.get("question")),
            gold=named.get("gold"),
            choices=[str(choice) for choice in choices] if isinstance(choices, list) and choices else None,
            scores={name: row[name] for name in scored if row[name] is not None},
            group=text_or_none(named.get("group")),
            model=text_or_none(named.get("model")),
            usage={name: tokens for name in USAGE if (tokens := _integer(row.get(name))) is not None},
            started=text_or_none(named.get("started")),
            seconds=named["seconds"] if isinstance(named.get("seconds"), int | float) else None,
            finish_reason=text_or_none(named.get("finish_reason")) or _finish(row.get("truncated")),
            failure=text_or_none(named.get("failure")) or (None if answers else "there is no message of the assistant"),
        )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file, each after its place."""
    if path.suffix == ".jsonl":
        for number, row in json_lines(path):
            yield f"{path}, line {number}", _row(row, f"{path}, line {number}")
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ExchangeError(f"{path} is no JSON ({error})") from None
        rows = content if isinstance(content, list) and not _is_message(content[:1]) else [content]
        for number, row in enumerate(rows, 1):
            yield f"{path}, entry {number}", _row(row, f"{path}, entry {number}")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                number = 0
                for batch in file.iter_batches(BATCH):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
        except pa.ArrowException as error:
            raise ExchangeError(f"{path} cannot be read ({error})") from None
    else:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                for number, row in enumerate(csv.DictReader(file), 1):
                    if None in row or None in row.values():
                        raise ExchangeError(f"{path}, row {number} has another number of columns than the first line")
                    yield f"{path}, row {number}", {key: value if value != "" else None for key, value in row.items()}
            except (csv.Error, UnicodeDecodeError) as error:
                raise ExchangeError(f"{path} cannot be read ({error})") from None


def _row(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, list):
        return {"messages": value}
    if not isinstance(value, dict):
        raise ExchangeError(f"{where} is neither an object nor a list of messages")
    return value


def _is_message(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], Mapping) and "role" in values[0] and "messages" not in values[0]


def _messages(value: Any, where: str) -> list[Message]:
    """Return messages with the fields that a trajectory keeps, without null values."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ExchangeError(f"{where}: messages are no JSON ({error})") from None
    if not isinstance(value, list) or not value:
        raise ExchangeError(f"{where}: messages are no list of at least one message")
    messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ExchangeError(f"{where}: message {number} has no role")
        kept = {"role": message["role"], "content": message.get("content") or ""}
        kept |= {name: message[name] for name in MESSAGE_FIELDS if message.get(name) not in (None, [], "")}
        if isinstance(kept.get("tool_calls"), str):  # as the exported data set has them
            try:
                kept["tool_calls"] = json.loads(kept["tool_calls"])
            except ValueError as error:
                raise ExchangeError(f"{where}: tool_calls of message {number} are no JSON ({error})") from None
        messages.append(kept)
    return messages


def _first(row: Mapping[str, Any], key: str) -> str | None:
    return next((name for name in COLUMNS[key] if row.get(name) is not None), None)


def _integer(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _finish(truncated: Any) -> str | None:
    return None if not isinstance(truncated, bool) else "length" if truncated else "stop"
