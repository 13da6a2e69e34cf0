"""Write trajectories as a data set of Hugging Face, and tables as CSV or LaTeX."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.exchange.conversation import ExchangeError
from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import MESSAGE_FIELDS, Message, message_text, read_messages

BATCH = 1000
_PLAIN = tuple(name for name in MESSAGE_FIELDS if name not in ("tool_calls", "audio", "annotations"))
_MESSAGE = pa.struct([(name, pa.string()) for name in ("role", "content", *_PLAIN, "tool_calls")])
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def write_dataset(folder: Path, output: Path) -> Path:
    """Write the trajectories of a folder, graded again, as a data set that `datasets.load_dataset` reads.

    Args:
        folder: of an experiment, or any folder of trajectories.
        output: folder of `README.md` and `data/train.parquet`; it must not exist, or be empty.

    Raises:
        ExchangeError: the output folder holds something.
        FileNotFoundError: there is no trajectory.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ExchangeError(f"{output} exists and is not empty; choose another --output")
    table, layout = load_trajectories(folder), Layout(folder)
    schema = pa.Schema.from_pandas(table, preserve_index=False).remove_metadata()
    schema = pa.schema([*schema, pa.field("messages", pa.list_(_MESSAGE))])
    with atomic.directory(output) as temporary:
        (temporary / "data").mkdir()
        with pq.ParquetWriter(temporary / "data" / "train.parquet", schema) as writer:
            for start in range(0, len(table), BATCH):
                part = table.iloc[start : start + BATCH]
                values = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata(None)
                messages = [_messages(layout, row) for row in part.to_dict("records")]
                column = pa.array(messages, pa.list_(_MESSAGE))
                writer.write_table(values.append_column("messages", column).cast(schema))
        (temporary / "README.md").write_text(_card(folder, table), encoding="utf-8")
    return output


def write_csv(folder: Path, name: str, output: Path) -> Path:
    """Write a table as CSV: UTF-8, a header line, empty cells for null.

    Raises:
        FileNotFoundError: there is no such table.
        ExchangeError: the file exists.
    """
    return _write(output, read_table(folder, name).to_csv(index=False, lineterminator="\n"))


def write_latex(folder: Path, name: str, output: Path) -> Path:
    r"""Write a table as a LaTeX `tabular` with the rules of the package booktabs; text is escaped.

    Numbers have four significant digits. Line breaks and control characters in text become spaces, as a blank line
    ends a cell.

    Raises:
        FileNotFoundError: there is no such table.
        ExchangeError: the file exists.
    """
    table = read_table(folder, name)
    cells = pd.DataFrame({str(column): [_cell(value) for value in table[column]] for column in table})
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table]
    layout = "".join("r" if right else "l" for right in numeric)
    latex = cells.to_latex(index=False, escape=True, column_format=layout)
    return _write(output, f"% {name}: {_meaning(name)} Needs \\usepackage{{booktabs}}.\n{latex}")


def _write(output: Path, text: str) -> Path:
    if output.exists():
        raise ExchangeError(f"{output} exists; choose another --output, or remove it")
    atomic.write_text(output, text)
    return output


def _cell(value: Any) -> str:
    if value is None or (not isinstance(value, str) and pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else _CONTROL.sub(" ", str(value))


def _meaning(name: str) -> str:
    return " ".join(TABLES[name].meaning.split()) if name in TABLES else "table of Emoprobe."


def _messages(layout: Layout, row: dict[Any, Any]) -> list[dict[str, str | None]]:
    path = layout.pair(row["variant"], draw_id(row["sample_id"], row["draw"])) / "trajectory.jsonl"
    return [_flat(message) for message in read_messages(path)]


def _flat(message: Message) -> dict[str, str | None]:
    """Return a message as text fields; calls of tools as JSON."""
    values: dict[str, str | None] = {
        "role": message["role"],
        "content": message_text({"content": message.get("content")}),
    }
    values |= {name: str(message[name]) for name in _PLAIN if message.get(name) is not None}
    if message.get("tool_calls"):
        values["tool_calls"] = json.dumps(message["tool_calls"], ensure_ascii=False)
    return values


def _card(folder: Path, table: pd.DataFrame) -> str:
    """Return the card: where the data are, what they are, and the meaning of each column."""
    name = folder.absolute().name
    metadata = RunMetadata.of(Layout(folder))
    header = {
        "pretty_name": name,
        "tags": ["emoprobe"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
    }
    rows = [f"| `{name}` | {_table_text(TABLES['trajectories'].meaning_of(name))} |" for name in map(str, table)]
    rows.append("| `messages` | The conversation: `role`, `content`, and further fields; `tool_calls` as JSON. |")
    variants = ", ".join(f"`{variant}`" for variant in table["variant"].drop_duplicates())
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
            f"# {name}\n",
            f"{len(table)} conversations of {metadata.model.id or 'an unknown model'} on "
            f"{table['sample_id'].nunique()} questions, exported by Emoprobe.",
            f"Variants of the prompt: {variants}.\n",
            "| column | meaning |\n| --- | --- |",
            *rows,
            "",
            "Add the licenses of the questions and of the model before you publish this data set.",
            "",
        ]
    )


def _table_text(text: str) -> str:
    return _CONTROL.sub(" ", text).replace("|", "\\|")
