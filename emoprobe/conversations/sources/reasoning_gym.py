"""Generated problems: the tasks of the package `reasoning_gym`, as many rows as one wants."""

from __future__ import annotations

import difflib
import importlib
import sys
from importlib.util import find_spec, module_from_spec
from threading import Lock
from typing import Any

from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.sources.data_source import DataError, DataSource, Kind, Row
from emoprobe.graders.answers import gold_number

PREFIX = "reasoning_gym:"
# Short for `reasoning_gym:gsm_symbolic` (GSM-Symbolic, arXiv:2410.05229), with questions that come up twice kept.
SHORT_NAME = "gsm_symbolic"
PACKAGE, FAMILY = "reasoning_gym", "arithmetic"
_IMPORTING = Lock()  # a pool opens the data of its experiments in threads
# What a task calls its kinds of question, where it has several.
KIND_KEYS = ("task_type", "task", "problem_type")
# Rows in a row that bring no new question before a task counts as used up.
USED_UP = 5000
# How much of a draw a plan looks at: questions that must differ, answers that must be numbers.
MOST_CHECKED, MOST_GRADED = 2000, 200


def matches(source: str) -> bool:
    """Return whether a source is a task."""
    return source == SHORT_NAME or source.startswith(PREFIX)


def task_of(source: str) -> str:
    """The name of the task."""
    return source.removeprefix(PREFIX)


def check(dataset: Dataset, seed: int) -> list[str]:
    """Return problems: an unknown task or argument, too few different questions, or answers that are no numbers.

    Of a large draw only the beginning is looked at.
    """
    try:
        rows = open_task(dataset.model_copy(update={"samples": min(dataset.samples, MOST_CHECKED)}), seed)
    except DataError as error:
        return [str(error)]
    graded = min(len(rows), MOST_GRADED) if dataset.answer is not None and dataset.answer_type == "number" else 0
    for position in range(graded):
        answer = rows.row(position).answer
        if gold_number(answer) is None:
            return [f"dataset.source = {dataset.source!r}: not every answer is a number (found {answer!r:.60})"]
    return []


def open_task(dataset: Dataset, seed: int) -> DataSource:
    """Open a task.

    Raises:
        DataError: it is unknown, does not take the arguments, or has too few different questions.
    """
    rows = _open(dataset, seed, dataset.samples)
    return rows if dataset.source == SHORT_NAME else Distinct(rows, dataset)


class TaskRows:
    """The rows of a task in its own order: each follows from the seed and its position alone."""

    seeded = True

    def __init__(self, task: str, rows: Any, size: int) -> None:
        self._task, self._rows, self._size = task, rows, size

    def __len__(self) -> int:
        return self._size

    def row(self, position: int) -> Row:
        """The problem at a position, from 0."""
        row = self._rows[position]
        metadata = row["metadata"]
        solution = {"solution": metadata["answer_cot"]} if "answer_cot" in metadata else {}
        return Row(row["question"], row["answer"], solution, self._group(position, metadata))

    def _group(self, position: int, metadata: dict[str, Any]) -> str | None:
        """Its template; else its kind of question and what its difficulty varies in; null where nothing varies."""
        templates = getattr(self._rows, "task_indices", None)
        if templates is not None:
            return f"{self._task}:{templates[position]}"
        parts = [str(metadata[key]) for key in KIND_KEYS if isinstance(metadata.get(key), str)]
        difficulty = metadata.get("difficulty")
        for key, extent in difficulty.items() if isinstance(difficulty, dict) else ():
            varies = not isinstance(extent, tuple | list) or len(set(extent)) > 1
            if varies and isinstance(metadata.get(key), int | float | str):
                parts.append(f"{key}={metadata[key]}")
        return " ".join(parts) or None


class Distinct:
    """A task without the questions that came up before: copies would count one observation twice.

    A row still follows from the seed and its place alone.
    """

    seeded = True

    def __init__(self, rows: TaskRows, dataset: Dataset) -> None:
        self._rows = rows
        self._positions: list[int] = []
        seen: set[str] = set()
        position = 0
        while len(self._positions) < dataset.samples:
            if position - (self._positions[-1] if self._positions else 0) > USED_UP:
                raise DataError(
                    f"dataset.samples = {dataset.samples}: {dataset.source} has only {len(seen)} different questions "
                    "with these dataset.arguments; ask for fewer, or for harder ones"
                )
            question = rows.row(position).question
            if question not in seen:
                seen.add(question)
                self._positions.append(position)
            position += 1

    def __len__(self) -> int:
        return len(self._positions)

    def row(self, position: int) -> Row:
        """The different question at a position, from 0."""
        return self._rows.row(self._positions[position])


def _open(dataset: Dataset, seed: int, size: int) -> TaskRows:
    task = task_of(dataset.source)
    try:
        with _IMPORTING:
            factory = _factory()
            if task not in factory.DATASETS:
                importlib.import_module(PACKAGE).create_dataset  # noqa: B018 (brings all tasks)
    except ImportError as error:
        raise DataError(
            f"dataset.source = {dataset.source!r}: needs the package reasoning-gym ({error}); run make env"
        ) from None
    if task not in factory.DATASETS:
        near = difflib.get_close_matches(task, factory.DATASETS, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise DataError(f"dataset.source = {dataset.source!r}: reasoning_gym has no task {task!r}{hint}")
    reserved = sorted({"seed", "size"} & set(dataset.arguments))
    if reserved:
        raise DataError(f"dataset.arguments.{reserved[0]}: is set by the experiment; remove the key")
    known = [name for name in factory.DATASETS[task][1].__dataclass_fields__ if name not in ("seed", "size")]
    for name in dataset.arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"dataset.arguments.{name}: {task} has no such argument{hint} (known: {', '.join(known) or 'none'})"
            )
    try:
        # Room to pass over questions that came up before; what a row holds does not depend on it. Each place costs a
        # random draw in some tasks.
        room = 0 if dataset.source == SHORT_NAME else 1_000_000
        rows = factory.create_dataset(task, seed=seed, size=max(size, 1) + room, **dataset.arguments)
        rows[0]
    except Exception as error:
        raise DataError(
            f"dataset.arguments = {dataset.arguments}: {task} does not take them ({type(error).__name__}: {error})"
        ) from None
    return TaskRows(task, rows, size)


def _factory() -> Any:
    """The package's factory, with the tasks of arithmetic at least.

    The package imports all its families, and with them what draws and solves: ten times what arithmetic takes. So it
    is made to do that once one of its names is asked for, which arithmetic does not.

    Raises:
        ImportError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        raise ImportError(f"No module named {PACKAGE!r}")
    if PACKAGE not in sys.modules:
        package, loader = module_from_spec(spec), spec.loader

        def complete(name: str) -> Any:
            vars(package).pop("__getattr__", None)
            loader.exec_module(package)
            return getattr(package, name)

        vars(package)["__getattr__"] = complete
        sys.modules[PACKAGE] = package
        importlib.import_module(f"{PACKAGE}.{FAMILY}")
    return sys.modules[f"{PACKAGE}.factory"]


KIND = Kind(f"{SHORT_NAME}, {PREFIX}TASK", matches, open_task, check)
