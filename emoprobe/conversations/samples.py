"""Samples: their ids, their draws, and the seeded permutation of a data set that they are drawn along."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.section import MAX_NAME, NAME, is_format, is_local
from emoprobe.conversations.sources import DataError, Row, kind_of, open_source
from emoprobe.conversations.sources.data_source import paths_sha256
from emoprobe.conversations.sources.files import is_file
from emoprobe.graders.answers import LETTERS, canonical, gold_letter, gold_number, with_options
from emoprobe.results.layout import draw_id, split_draw_id
from emoprobe.results.record import content_sha256
from emoprobe.results.trajectory import Sample
from emoprobe.text import half_surrogate, hashed_number

__all__ = ["DataError", "draw_id", "split_draw_id"]


def sample_ids(dataset: Dataset) -> list[str]:
    """Return the ids of an experiment's samples, in order, without reading any data.

    Raises:
        DataError: the data set has ids, and no run has filled them in.
    """
    if dataset.drawn is not None:
        return list(dataset.drawn)
    if dataset.id is not None:
        raise DataError(f"dataset.id = {dataset.id!r}: the ids are not read yet (see `with_ids`)")
    return [sample_id(dataset, index) for index in range(dataset.samples)]


def experiment_pairs(config: Config) -> list[tuple[str, str]]:
    """Variant and folder name of every trajectory of an experiment, all draws of each sample.

    A variant that is asked k times has k times as many draws: first all those of the first ask, then those of the next.
    """
    draws = config.generation.draws
    return [
        (name, draw_id(sample, draw))
        for name, variant in config.variants.items()
        for sample in sample_ids(config.dataset)
        for draw in range(1, draws * variant.asks + 1)
    ]


def judged_pairs(config: Config) -> list[tuple[str, str, str]]:
    """Judge, variant and folder name of every judgement of an experiment."""
    pairs = experiment_pairs(config) if config.judges else []
    return [(judge.outcome, *pair) for judge in config.judges for pair in judge.judged(pairs)]


def counterpart(config: Config, reference: str, name: str) -> str:
    """Return the folder of the reference's answer that an answer of a variant is compared with.

    It is the same draw of the same question, in the first ask where the reference is asked less often.

    Args:
        config: the experiment.
        reference: variant that is compared with.
        name: folder of the variant's answer.
    """
    sample, draw = split_draw_id(name)
    draws = config.generation.draws
    there = draw <= draws * config.variants[reference].asks
    return draw_id(sample, draw if there else (draw - 1) % draws + 1)


def known_pairs(config: Config | None, there: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the pairs in a folder that belong to its experiment, in their order.

    A folder may hold more than its config names: variants that were removed, samples from when there were more. What
    the config leaves open, as those that other programs write may, rules nothing out.

    Args:
        config: the folder's; None: it has none, and every pair belongs to it.
        there: variant and folder name of each trajectory.
    """
    pairs = list(there)
    if config is None:
        return pairs
    if "variants" in config.model_fields_set:
        pairs = [pair for pair in pairs if pair[0] in config.variants]
    if {"samples", "id_prefix"} <= config.dataset.model_fields_set:
        known = set(sample_ids(config.dataset))
        draws = config.generation.draws if "draws" in config.generation.model_fields_set else sys.maxsize
        asks = {name: variant.asks for name, variant in config.variants.items()}
        split = ((pair, *split_draw_id(pair[1])) for pair in pairs)
        pairs = [pair for pair, sample, draw in split if sample in known and draw <= draws * asks.get(pair[0], 1)]
    return pairs


def captured_pairs(config: Config) -> list[tuple[str, str]]:
    """Those of the pairs whose activations are captured: the first `capture.samples` questions, asked once."""
    return _first_pairs(config, config.capture.samples) if config.capture.enabled else []


def token_pairs(config: Config) -> list[tuple[str, str]]:
    """Those of the pairs whose every token is captured: the first `features.samples` questions, asked once."""
    return _first_pairs(config, config.features.samples) if config.features.enabled else []


def _first_pairs(config: Config, samples: int | None) -> list[tuple[str, str]]:
    """The first questions with every draw of the first ask, which every variant has; without formats of the prompt."""
    split = ((pair, *split_draw_id(pair[1])) for pair in experiment_pairs(config))
    first = set(sample_ids(config.dataset)[:samples])
    return [
        pair
        for pair, sample, draw in split
        if sample in first and draw <= config.generation.draws
        if not is_format(pair[0])
    ]


def sample_id(dataset: Dataset, index: int) -> str:
    """`gsm8k_0001` for index 0, and so on."""
    return f"{dataset.id_prefix}_{index + 1:04d}"


def sample_index(config: Config, identifier: str) -> int:
    """Return the index, from 0, of a sample's id or of one of its draws: what decides the texts of a question.

    It is the place in the permutation. With `dataset.id` it follows from the id and the seed alone, so that no other
    row changes it, and samples are ordered by it.
    """
    sample = split_draw_id(identifier)[0]
    if config.dataset.id is not None:
        return _index_of_id(config.experiment.seed, sample)
    return int(sample.rpartition("_")[2]) - 1


def _index_of_id(seed: int, sample: str) -> int:
    """A number in [0, 2³¹) that looks random."""
    return hashed_number(f"{seed}:{sample}", 31)


def with_ids(config: Config) -> Config:
    """Return a configuration whose ids are read from its data set, where that has ids.

    Raises:
        DataError: the data set cannot be read, or has an id that is missing, used twice or no name of a folder.
    """
    if config.dataset.id is None:
        return config
    drawn = [*row_digests(config.dataset, config.experiment.seed)]
    return config.model_copy(update={"dataset": config.dataset.model_copy(update={"drawn": drawn})})


def row_digests(dataset: Dataset, seed: int) -> dict[str, str]:
    """Return sample → a digest of its row, where the data set has ids: each sample depends on its row alone.

    A file is read once, and again after it was changed.

    Raises:
        DataError: as `Drawer`.
    """
    if dataset.id is None:
        return {}
    files = [path for path in _local_files(dataset.source) if path.exists()]
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return dict(_row_digests(dataset.model_dump_json(exclude={"drawn"}), seed, stamps))


@lru_cache(maxsize=16)
def _row_digests(dataset: str, seed: int, stamps: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """Digests of the rows of a data set in JSON, whose files have some paths, sizes and times."""
    read = Dataset.model_validate_json(dataset)
    drawer = Drawer(read, seed)
    return {name: drawer.digest(name) for name in drawer.ids[: read.samples]}


def identity(dataset: Dataset, seed: int) -> str:
    """Return the values that a trajectory depends on, except the number of samples. Local files enter by content.

    Where rows have ids, each sample depends on its own, see `row_digests`.

    Raises:
        OSError: a local file cannot be read.
    """
    fields = dataset.content()
    paths = _local_files(dataset.source) if dataset.id is None else []
    if paths:
        fields["sha256"] = paths_sha256(paths)
    return json.dumps([fields, seed], sort_keys=True)


def located(dataset: Dataset, folder: Path) -> Dataset:
    """The same data set with a local source as seen from elsewhere: its path is taken from `folder`."""
    if not (is_local(dataset.source) or is_file(dataset.source)):
        return dataset
    return dataset.model_copy(update={"source": str(folder.absolute() / Path(dataset.source).expanduser())})


class Drawer:
    """A data set that was opened once, and its samples by their place in the seeded permutation.

    The first N stay the same when N grows. Where rows have ids, `ids` has those of all samples in order.

    Raises:
        DataError: the source cannot be read, or has fewer rows than samples are asked for.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._rows = open_source(dataset, seed)
        if dataset.samples > len(self._rows):
            raise DataError(
                f"dataset.samples = {dataset.samples}: {dataset.source} has only {len(self._rows)} rows"
                + ("" if is_file(dataset.source) else f" in split {dataset.split}")
            )
        self._order: Sequence[int] = range(len(self._rows))
        self.ids: list[str] = []
        self._places: dict[str, int] = {}
        if dataset.id is not None:
            positions = self._by_id()
            self.ids, self._order = list(positions), list(positions.values())
            self._places = {name: place for place, name in enumerate(positions)}
        elif not self._rows.seeded:
            order = list(self._order)
            random.Random(seed).shuffle(order)
            self._order = order

    def _by_id(self) -> dict[str, int]:
        """Sample → the position of its row, in the order of the samples."""
        dataset, found = self._dataset, dict[str, int]()
        first: dict[str, int] = {}
        for position in range(len(self._rows)):
            where = f"dataset.source: row {position + 1} of {dataset.source}"
            name = _own_id(self._rows.row(position).id, dataset, where)
            # A file system may not tell upper from lower case.
            if (other := first.setdefault(name.casefold(), position)) != position:
                raise DataError(
                    f"{where} has the id of row {other + 1} in column {dataset.id!r}; give each row another ({name})"
                )
            found[name] = position
        return dict(sorted(found.items(), key=lambda item: (_index_of_id(self._seed, item[0]), item[0])))

    def digest(self, name: str) -> str:
        """Return a digest of the row of a sample with an id, wherever it is in its file."""
        return content_sha256(
            json.loads(json.dumps(vars(self._rows.row(self._order[self._places[name]])), default=str))
        )

    def named(self, name: str) -> Sample:
        """Return the sample of an id.

        Raises:
            DataError: no row has the id, or as `sample`.
        """
        if self._dataset.id is None:
            return self.sample(int(name.rpartition("_")[2]) - 1)
        if name not in self._places:
            raise DataError(f"dataset.source: no row of {self._dataset.source} is {name} any more; run again")
        return self.sample(self._places[name])

    def sample(self, index: int) -> Sample:
        """The sample at a place of the permutation, from 0.

        Raises:
            DataError: its row has no question, or no answer that can be graded.
        """
        dataset, position = self._dataset, self._order[index]
        row = self._rows.row(position)
        where = f"dataset.source: row {position + 1} of {dataset.source}"
        name = sample_id(dataset, index)
        kept: dict[str, Any] = {"row": position}
        if dataset.id is not None:  # the place in the file changes where rows are added before it
            name = self.ids[index]
            index, kept = _index_of_id(self._seed, name), {"id": str(row.id)}
        if (place := half_surrogate(vars(row))) is not None:
            raise DataError(
                f"{where} holds half a surrogate pair ({place}), which no UTF-8 file can hold; mend or remove the row"
            )
        if not isinstance(row.question, str) or not row.question.strip():
            raise DataError(f"{where} has no question in column {dataset.question!r} (found {row.question!r:.60})")
        choices = None if dataset.choices is None else _options(row, dataset, where)
        return Sample(
            sample_id=name,
            index=index,
            question=with_options(row.question.strip(), choices),
            answer=_gold(row, choices, dataset, where),
            source={**kept, **row.source},
            group=row.group,
            choices=choices,
        )


def draw(dataset: Dataset, seed: int) -> Iterator[Sample]:
    """All samples of an experiment, in order.

    Raises:
        DataError: as `Drawer` and its samples.
    """
    drawer = Drawer(dataset, seed)
    return (drawer.sample(index) for index in range(dataset.samples))


def _own_id(value: Any, dataset: Dataset, where: str) -> str:
    """The sample id of a row by its own id: text or a whole number that can be part of the name of a folder."""
    text = str(value) if type(value) in (str, int) else ""
    if not text.strip():
        raise DataError(f"{where} has no id in column {dataset.id!r} (found {value!r:.60})")
    name = f"{dataset.id_prefix}_{text}"
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME or re.search(r"-d\d+$", name):
        raise DataError(
            f"{where} has the id {text!r:.80} in column {dataset.id!r}, which cannot be the name of a folder: letters, "
            f"digits, _ and - inside, with dataset.id_prefix at most {MAX_NAME} characters, and no -d2 at its end, "
            "which is a draw"
        )
    return name


def _options(row: Row, dataset: Dataset, where: str) -> list[str]:
    choices = row.choices
    if (
        not isinstance(choices, list | tuple)
        or not 2 <= len(choices) <= len(LETTERS)
        or not all(isinstance(choice, str) and choice.strip() for choice in choices)
    ):
        raise DataError(
            f"{where} has no list of 2 to {len(LETTERS)} options in column {dataset.choices!r}, as dataset.choices "
            f"asks for (found {choices!r:.60})"
        )
    return list(choices)


def _gold(row: Row, choices: list[str] | None, dataset: Dataset, where: str) -> str | None:
    if dataset.answer is None:
        return None
    if choices is not None:
        letter = gold_letter(row.answer, choices)
        if letter is None:
            raise DataError(
                f"{where} has an answer in column {dataset.answer!r} that is not the letter, index (from 0) or text of "
                f"just one option (found {row.answer!r:.60})"
            )
        return letter
    if dataset.answer_type == "text":
        if not isinstance(row.answer, str) or not row.answer.strip():
            raise DataError(f"{where} has no text as answer in column {dataset.answer!r} (found {row.answer!r:.60})")
        return row.answer.strip()
    number = gold_number(row.answer)
    if number is None:
        raise DataError(
            f"{where} has no number as answer in column {dataset.answer!r} (found {row.answer!r:.60}); "
            "where the answer is one of several options, name their column in dataset.choices; where it is a text, set "
            "dataset.answer_type to text"
        )
    return canonical(number)


def _local_files(source: str) -> list[Path]:
    try:
        return kind_of(source).paths(source)
    except DataError:
        return []
