"""`api_calls.jsonl`: every call of an API and what it cost, so that a budget holds over all runs of an experiment.

A call writes a line with the most that it may cost before it is made, and a line with its cost once that is known. A
call whose second line is missing, as its process was killed meanwhile, counts at its most. No rule makes the file, and
it is never shortened: a trajectory that is deleted and made again has cost twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from emoprobe.text import filled_lines


class ApiCalls:
    """The calls of one experiment, those of earlier runs included.

    `models` counts calls with a response, judgements left out, by the model and the fingerprint that the API gives.

    Args:
        path: of the file, which need not be there.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.models: Counter[str] = Counter()
        self._path = path
        self._costs: dict[int, float] = {}
        self.spent = 0.0
        """The cost of all calls, those that are not settled at their most."""
        for _, line in filled_lines(path.read_bytes() if path.exists() else b""):
            # A half-written line is of a call that was not made yet, or that counts at its most.
            try:
                self._add(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue

    def __len__(self) -> int:
        return len(self._costs)

    def begin(self, most: float, **about: Any) -> int:
        """Record a call that is about to be made; return its number.

        Raises:
            OSError: it cannot be recorded.
        """
        number = max(self._costs, default=0) + 1
        self._write({"call": number, "most": most, **about})
        return number

    def settle(self, number: int, cost: float, **about: Any) -> None:
        """Record the cost of a call.

        Raises:
            OSError: it cannot be recorded.
        """
        self._write({"call": number, "cost": cost, **about})

    def _write(self, entry: dict[str, Any]) -> None:
        """Add a line, on a line of its own also after one that is half written."""
        with open(self._path, "ab+") as file:
            torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._add(entry)

    def _add(self, entry: dict[str, Any]) -> None:
        number, cost = int(entry["call"]), float(entry["cost"] if "cost" in entry else entry["most"])
        self.spent += cost - self._costs.get(number, 0.0)
        self._costs[number] = cost
        if entry.get("model") and "judge" not in entry:
            fingerprint = entry.get("fingerprint")
            self.models[f"{entry['model']} ({fingerprint})" if fingerprint else str(entry["model"])] += 1
