"""Inject the named faults, or all: one JSON line for each."""

from __future__ import annotations

import json
import sys

from tests.chaos.faults import FAULTS
from tests.chaos.scene import survive


def main() -> None:
    """Exit with 1 where one was not survived."""
    failed = False
    for name in sys.argv[1:] or list(FAULTS):
        try:
            result = survive(name, FAULTS[name])
        except Exception as error:
            failed = True
            result = {"fault": name, "expected": FAULTS[name].expected}
            result["happened"] = f"NOT SURVIVED: {type(error).__name__}: {error}"[:3000]
        print(json.dumps(result), flush=True)
    sys.exit(failed)


main()
