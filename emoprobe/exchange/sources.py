"""Files of conversations: which format they have, and their readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from emoprobe.exchange.conversation import Conversation, ExchangeError
from emoprobe.exchange.importing import FieldMapping

Format = Literal["inspect", "lm-eval", "messages"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "inspect": (".eval", ".json"),
    "lm-eval": (".jsonl",),
    "messages": (".jsonl", ".json", ".parquet", ".csv"),
}
# Fields that name the variant where neither --variant nor --prefix is given.
DEFAULT_VARIANT: dict[Format, str] = {"inspect": "task_args.variant", "lm-eval": "task", "messages": "variant"}


@dataclass(frozen=True)
class OpenedSources:
    """Conversations of files, read one at a time, the mapping with its default variant, and the format of the files."""

    conversations: Iterator[Conversation]
    mapping: FieldMapping
    format: Format


def open_conversations(
    sources: Sequence[Path], mapping: FieldMapping, format: Format | None = None, filter: str | None = None
) -> OpenedSources:
    """Open the conversations of files and folders.

    Args:
        sources: files, or folders whose files of the format are read, in the order of their names.
        mapping: as the user gave it.
        format: None: the format follows from the names and content of the files.
        filter: name of the filter of lm-evaluation-harness whose scores are read; None: the first one.

    Raises:
        ExchangeError: there are no files, or they have several formats.
        FileNotFoundError: a source does not exist.
    """
    files = _files(sources, format)
    chosen = format or _format(files)
    if filter is not None and chosen != "lm-eval":
        raise ExchangeError(f"--filter is for samples of lm-evaluation-harness, and the format is {chosen}")
    if mapping.variant is None and not mapping.prefixes:
        mapping = replace(mapping, variant=DEFAULT_VARIANT[chosen])
    # Ids count within a task. With several tasks they are told apart, unless tasks are the variants.
    several = mapping.variant not in ("task", "task_file", "task_display_name")
    read: Callable[[Path], Iterator[Conversation]]
    if chosen == "inspect":
        from emoprobe.exchange.inspect_reader import read_log, task_of

        files = [path for path in files if path.suffix == ".eval" or _is_inspect_log(path)]
        read = partial(read_log, by_task=several and len({task_of(path) for path in files}) > 1)
    elif chosen == "lm-eval":
        from emoprobe.exchange.harness import read_samples, task_of_name

        files = [path for path in files if path.name.startswith("samples_")]
        by_task = several and len({task_of_name(path) for path in files}) > 1
        read = partial(read_samples, by_task=by_task, filter=filter)
    else:
        from emoprobe.exchange.messages import read_table

        read = partial(read_table, score=mapping.score)
    if not files:
        raise ExchangeError(f"{', '.join(map(str, sources))}: there is no file of the format {chosen}")
    return OpenedSources((conversation for path in files for conversation in read(path)), mapping, chosen)


def _files(sources: Sequence[Path], format: Format | None) -> list[Path]:
    suffixes = SUFFIXES[format] if format is not None else tuple({end for ends in SUFFIXES.values() for end in ends})
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix in suffixes)
            if not inside:
                raise ExchangeError(f"{source}: there is no file that ends in {', '.join(sorted(suffixes))}")
            files += inside
        elif source.suffix in suffixes:
            if not source.exists():
                raise FileNotFoundError(f"{source} does not exist")
            files.append(source)
        else:
            raise ExchangeError(f"{source} must be a folder, or end in {', '.join(sorted(suffixes))}")
    return list(dict.fromkeys(files))


def _format(files: list[Path]) -> Format:
    """Return the format of files. Beside samples of lm-evaluation-harness its results are allowed."""
    formats: dict[Format, Path] = {}
    for path in files:
        if path.suffix == ".eval" or (path.suffix == ".json" and _is_inspect_log(path)):
            formats.setdefault("inspect", path)
        elif path.suffix == ".jsonl" and path.name.startswith("samples_"):
            formats.setdefault("lm-eval", path)
        elif not (path.suffix == ".json" and path.name.startswith("results_")):
            formats.setdefault("messages", path)
    if len(formats) != 1:
        shown = ", ".join(f"{format} ({path})" for format, path in formats.items()) or "none"
        raise ExchangeError(f"the files have several formats; choose one with --format (there: {shown})")
    return next(iter(formats))


def _is_inspect_log(path: Path) -> bool:
    """Return whether a JSON file begins like a log of Inspect, of which it reads no more."""
    with path.open("rb") as file:
        start = file.read(4096).decode(errors="replace")
    return '"eval"' in start and '"status"' in start and start.lstrip().startswith("{")
