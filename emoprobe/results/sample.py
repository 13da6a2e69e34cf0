"""One question with its gold answer: `samples/{sample}.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from emoprobe.results import atomic
from emoprobe.results.record import OpenRecord, content_sha256


class SampleFile(OpenRecord):
    """`samples/{sample}.json` of any folder.

    `question` is what is asked, options included where there are `choices`; `answer` is the gold answer: a number in
    canonical notation, or the letter of a choice. `index` is its
    place in the permutation, `source` says where it came from. `group` names what it shares with other samples (its
    template or difficulty); null where it shares nothing, as in folders of the first version.
    """

    sample_id: str | None = None
    index: int | None = None
    question: str | None = None
    answer: str | int | float | None = None
    source: dict[str, Any] | None = None
    group: str | None = None
    choices: list[str] | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `samples/{sample}.json`.

        Raises:
            DamagedError: the file is missing or damaged.
        """
        return cls.read_file(path)


class Sample(SampleFile):
    """One question of an experiment, complete."""

    sample_id: str
    index: int
    question: str
    answer: str
    source: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The hash of its content; fields that are null do not enter, so that a later version may add some."""
        return content_sha256({key: value for key, value in self.values().items() if value is not None})

    def write(self, path: Path) -> None:
        """Write `samples/{sample}.json`."""
        atomic.write_json(path, self.values())
