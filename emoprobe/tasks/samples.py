"""Questions with exact gold answers: where they come from, and the seeded permutation that draws them."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from emoprobe.config.experiment import Config
from emoprobe.config.science.dataset import Dataset
from emoprobe.results.sample import Sample
from emoprobe.tasks.numbers import canonical, parse_number

GSM8K_ID = "openai/gsm8k"
GSM8K_REVISION = "main"
FILE_SUFFIXES = (".jsonl", ".parquet")
_FINAL = re.compile(r"####\s*(.+)")


class DataError(ValueError):
    """A data set that cannot be used; the message says where and why."""


class Rows(Protocol):
    """A data set: a length, and question, answer and the raw row by position."""

    def __len__(self) -> int: ...

    def row(self, position: int) -> tuple[Any, Any, dict[str, Any]]:
        """Question, answer and what the source row holds, not yet checked."""
        ...


def is_file(source: str) -> bool:
    """Whether a source names a file."""
    return source.endswith(FILE_SUFFIXES)


def sample_ids(dataset: Dataset) -> list[str]:
    """The ids of an experiment's samples, known without reading any data."""
    return [sample_id(dataset, index) for index in range(dataset.samples)]


def experiment_pairs(config: Config) -> list[tuple[str, str]]:
    """Variant and sample of every pair of an experiment."""
    return [(variant, sample) for variant in config.variants for sample in sample_ids(config.dataset)]


def sample_id(dataset: Dataset, index: int) -> str:
    """`gsm8k_0001` for index 0, and so on."""
    return f"{dataset.id_prefix}_{index + 1:04d}"


def sample_index(identifier: str) -> int:
    """The place in the permutation, from 0, of a sample's id."""
    return int(identifier.rpartition("_")[2]) - 1


def identity(dataset: Dataset, seed: int) -> str:
    """What a trajectory depends on, apart from how many samples are drawn. A file enters by its content."""
    fields = dataset.content()
    path = Path(dataset.source).expanduser()
    if is_file(dataset.source) and path.is_file():
        with open(path, "rb") as file:
            fields["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps([fields, seed], sort_keys=True)


class Drawer:
    """A data set that was opened once, and its samples by their place in the seeded permutation.

    The first N stay the same when N grows.

    Raises:
        DataError: the source cannot be read, or has fewer rows than samples are asked for.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._dataset = dataset
        self._rows = open_rows(dataset, seed)
        if dataset.samples > len(self._rows):
            raise DataError(
                f"dataset.samples = {dataset.samples}: {dataset.source} has only {len(self._rows)} rows"
                + (f" in split {dataset.split}" if dataset.source == "gsm8k" else "")
            )
        self._order = _permutation(dataset, len(self._rows), seed)

    def sample(self, index: int) -> Sample:
        """The sample at a place of the permutation, from 0.

        Raises:
            DataError: its row has no question, or no number as answer.
        """
        dataset, position = self._dataset, self._order[index]
        question, answer, source = self._rows.row(position)
        where = f"dataset.source: row {position + 1} of {dataset.source}"
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where} has no question in column {dataset.question!r} (found {question!r:.60})")
        gold = gold_answer(answer)
        if gold is None:
            raise DataError(f"{where} has no number as answer in column {dataset.answer!r} (found {answer!r:.60})")
        return Sample(
            sample_id=sample_id(dataset, index),
            index=index,
            question=question.strip(),
            answer=canonical(gold),
            source={"row": position, **source},
        )


def draw(dataset: Dataset, seed: int) -> Iterator[Sample]:
    """All samples of an experiment, in order.

    Raises:
        DataError: as `Drawer` and its samples.
    """
    drawer = Drawer(dataset, seed)
    return (drawer.sample(index) for index in range(dataset.samples))


def gold_answer(answer: Any) -> Fraction | None:
    """The exact number in an answer column: a number, a text that is one, or a solution that ends in `#### n`."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, int):
        return Fraction(answer)
    if isinstance(answer, float):
        # The shortest decimal that reads back as this float is what the author wrote.
        return Fraction(repr(answer)) if math.isfinite(answer) else None
    text = str(answer)
    if finals := _FINAL.findall(text):
        return parse_number(finals[-1].strip().rstrip("."))
    return parse_number(text.strip().rstrip("."))


def open_rows(dataset: Dataset, seed: int) -> Rows:
    """Open a data set by its source.

    Raises:
        DataError: there is no such source, file or column, or it cannot be read.
    """
    if dataset.source == "gsm_symbolic":
        return _SymbolicRows(dataset, seed)
    if dataset.source == "gsm8k":
        return _HubRows(dataset)
    path = Path(dataset.source).expanduser()
    if not is_file(dataset.source):
        raise DataError(
            f"dataset.source = {dataset.source!r}: must be gsm_symbolic, gsm8k or a file that ends in "
            f"{' or '.join(FILE_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"dataset.source: the file {path} does not exist")
    return _JsonLines(dataset, path) if path.suffix == ".jsonl" else _ParquetRows(dataset, path)


def _permutation(dataset: Dataset, length: int, seed: int) -> Sequence[int]:
    if dataset.source == "gsm_symbolic":
        return range(length)  # the generator itself is seeded, row by row
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return order


class _SymbolicRows:
    """GSM-Symbolic (arXiv:2410.05229): problems from templates, as many as one wants."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        import reasoning_gym

        # The problem at a position depends on the seed and the position alone, not on the size.
        self._rows = reasoning_gym.create_dataset("gsm_symbolic", seed=seed, size=dataset.samples)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, position: int) -> tuple[Any, Any, dict[str, Any]]:
        row = self._rows[position]
        return row["question"], row["answer"], {"solution": row["metadata"]["answer_cot"]}


class _HubRows:
    """GSM8K from the Hugging Face hub, or from the cache of an earlier download."""

    def __init__(self, dataset: Dataset) -> None:
        import datasets

        try:
            self._rows = datasets.load_dataset(GSM8K_ID, GSM8K_REVISION, split=dataset.split)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"dataset.source: {GSM8K_ID}, split {dataset.split}, could not be had from the Hugging Face hub: "
                f"{reason} Without a network, give the path of a .jsonl or .parquet file."
            ) from error

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, position: int) -> tuple[Any, Any, dict[str, Any]]:
        row = self._rows[position]
        return row["question"], row["answer"], {"solution": row["answer"]}


class _JsonLines:
    """A file with one JSON object a line. Only the drawn lines are parsed, so a million rows cost little."""

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self._dataset, self._path = dataset, path
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise DataError(f"dataset.source: {path}: {error.strerror or error}") from None
        self._lines = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if not self._lines:
            raise DataError(f"dataset.source: {path} is empty")

    def __len__(self) -> int:
        return len(self._lines)

    def row(self, position: int) -> tuple[Any, Any, dict[str, Any]]:
        number, line = self._lines[position]
        where = f"dataset.source: line {number} of {self._path}"
        try:
            if b"\0" in line:  # JSON text has none, UTF-16 and UTF-32 are full of them
                raise UnicodeError
            row = json.loads(line.decode("utf-8"))
        except UnicodeError:
            raise DataError(f"{where} is not UTF-8 text; convert the file, as with iconv -t utf-8") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is no JSON object")
        return _pick(row, self._dataset, where)


class _ParquetRows:
    """A Parquet file."""

    def __init__(self, dataset: Dataset, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self._dataset, self._path = dataset, path
        try:
            self._table = pyarrow.parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"dataset.source: {path} is no readable Parquet file ({error})") from None
        if not len(self._table):
            raise DataError(f"dataset.source: {path} is empty")

    def __len__(self) -> int:
        return len(self._table)

    def row(self, position: int) -> tuple[Any, Any, dict[str, Any]]:
        row = self._table.slice(position, 1).to_pylist()[0]
        return _pick(row, self._dataset, f"dataset.source: row {position + 1} of {self._path}")


def _pick(row: Mapping[str, Any], dataset: Dataset, where: str) -> tuple[Any, Any, dict[str, Any]]:
    for key, column in (("question", dataset.question), ("answer", dataset.answer)):
        if column not in row:
            raise DataError(
                f"{where} has no column {column!r}; name the column of the {key} in dataset.{key} "
                f"(columns: {', '.join(map(str, row))})"
            )
    question, answer = row[dataset.question], row[dataset.answer]
    return question, answer, {} if isinstance(answer, int | float) else {"solution": str(answer)}
