"""Steered trajectories: the same question and variant under each dose of a direction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.config.science.steering import NONE
from emoprobe.explorer.conversations import outcome, read_conversation
from emoprobe.explorer.scripts import Pages
from emoprobe.results.layout import Layout, condition_folder, draw_id
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import SampleFile

_EDIT = ("direction", "operation", "phase", "layers", "dose")


@dataclass(frozen=True)
class Steered:
    """The rows of the table `steering`, by question, and where their files are."""

    layout: Layout
    rows: list[dict[str, Any]]
    questions: dict[str, int]
    samples: dict[str, SampleFile]

    @classmethod
    def read(cls, layout: Layout, questions: dict[str, int], samples: dict[str, SampleFile]) -> Steered | None:
        """Read the table of an experiment; None where there is none.

        Raises:
            DamagedError: the table is damaged.
        """
        if not layout.table("steering").exists():
            return None
        rows = [row for row in plain_rows(read_table(layout.root, "steering")) if row["sample_id"] in questions]
        rows.sort(key=lambda row: questions[row["sample_id"]])
        return cls(layout, rows, questions, samples)

    def write(self, pages: Pages, notes: list[str]) -> dict[str, Any] | None:
        """Write the conversations; return the conditions and the columns of the index.

        Raises:
            DamagedError: a file is damaged; the message names it.
        """
        if not self.rows:
            return None
        conditions: dict[str, int] = {}
        edits: list[list[Any]] = []
        numbers, variants = [], {name: place for place, name in enumerate(sorted({r["variant"] for r in self.rows}))}
        number = 0
        for name, group in groupby(self.rows, key=lambda row: row["sample_id"]):
            entries = []
            for row in group:
                edit = [row[key] for key in _EDIT]
                condition = NONE if row["direction"] == NONE else condition_folder(*edit)
                if condition not in conditions:
                    conditions[condition] = len(conditions)
                    edits.append([row["family"], *edit, condition])
                numbers.append(conditions[condition])
                folder = self.layout.steered(condition, row["variant"], draw_id(name, row["draw"]))
                entries.append((number, read_conversation(folder, row, self.samples[name].choices)))
                number += 1
            size = sum(500 + sum(len(message.text) for message in entry.messages[-1:]) for _, entry in entries)
            pages.add(self.questions[name], entries, size)
        pages.flush()
        notes += pages.left_out("steered conversations", [*self.questions])
        return {
            "conditions": edits,
            "variants": list(variants),
            "c": numbers,
            "v": [variants[row["variant"]] for row in self.rows],
            "q": [self.questions[row["sample_id"]] for row in self.rows],
            "d": [row["draw"] for row in self.rows],
            "o": "".join(map(outcome, self.rows)),
            "t": "".join("1" if row["truncated"] else "0" for row in self.rows),
            "pages": sorted(pages.places.items()),
        }
