"""Judges for tests; `tests.stub_server` judges as any model whose name begins with `judge`."""

from __future__ import annotations

from typing import Any


def judge(**keys: Any) -> dict[str, Any]:
    """The config of a judge of politeness."""
    given = {
        "name": "judge",
        "rubric": "Is the answer polite?",
        "model": "judge-x",
        "endpoints": ["http://127.0.0.1:9"],
    }
    return {**given, **keys}
