"""One question with its gold answer: `samples/{sample}.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from emoprobe.results import atomic
from emoprobe.results.record import Record


class Sample(Record):
    """One question.

    `question` is what is asked, options included where there are `choices`; `answer` is the gold answer: a number in
    canonical notation, or the letter of a choice. `index` is its
    place in the permutation, `source` says where it came from. `group` names what it shares with other samples (its
    template or difficulty); null where it shares nothing, as in folders of the first version.
    """

    sample_id: str
    index: int
    question: str
    answer: str
    source: dict[str, Any]
    group: str | None = None
    choices: list[str] | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `samples/{sample}.json`.

        Raises:
            DamagedError: the file is missing or damaged.
        """
        return cls.read_file(path)

    def write(self, path: Path) -> None:
        """Write `samples/{sample}.json`."""
        atomic.write_json(path, self.values())
