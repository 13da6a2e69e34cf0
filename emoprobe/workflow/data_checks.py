"""Rows of a data set that a plan reads: their ids, and questions that come up more than once."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

from emoprobe import __version__
from emoprobe.config.errors import ConfigError, lines_by_experiment
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.conversations.samples import DataError, draw, with_ids
from emoprobe.conversations.sources import files
from emoprobe.workflow.remembered import remembered


def with_own_ids(study: Study) -> Study:
    """Return a plan with the ids of the samples where data sets have ids, see `dataset.id`.

    Raises:
        ConfigError: a data set cannot be read, or an id cannot be used; a line a problem.
    """
    problems: dict[str, list[str]] = {}
    configs = {}
    for name, config in study.configs.items():
        try:
            if config.dataset.id is not None and not files.is_file(config.dataset.source):
                raise DataError(f"dataset.id = {config.dataset.id!r}: only files have ids; remove the key")
            configs[name] = with_ids(config)
        except DataError as error:
            problems.setdefault(str(error), []).append(name)
    if problems:
        raise ConfigError(lines_by_experiment(problems, several=len(study.configs) > 1))
    return Study(study.name, configs)


def repeated_questions(study: Study, cache: Path | None) -> list[str]:
    """Return how many questions of a file come up more than once, a line an experiment; none where none does.

    Args:
        study: the plan, whose data has been checked.
        cache: folder in which the answer is kept as long as the file does not change.
    """
    found = []
    for name, config in study.configs.items():
        if files.is_file(config.dataset.source):
            about = [
                "repeated", __version__, config.dataset.model_dump(mode="json"), config.experiment.seed,
                [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns]
                 for path in files.paths(config.dataset.source)],
            ]  # fmt: skip
            found += [f"{name}: {line}" for line in remembered(cache, about, partial(_repeated, config))]
    return found


def _repeated(config: Config) -> list[str]:
    try:
        samples = list(draw(config.dataset, config.experiment.seed))
    except DataError:
        return []  # named by the checks of the data
    texts = Counter(sample.question for sample in samples)
    rows = Counter(json.dumps([sample.question, sample.answer, sample.group]) for sample in samples)
    several = [count for count in texts.values() if count > 1]
    if not several:
        return []
    equal = sum(count for count in rows.values() if count > 1)
    return [
        f"dataset.source: {len(several)} question{'s come' if len(several) > 1 else ' comes'} up more than once, in "
        f"{sum(several)} of {len(samples)} samples; {equal} of these are equal in answer and group as well. Copies of "
        "a question count as one unit in every comparison"
    ]
