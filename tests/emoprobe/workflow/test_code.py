"""Digests of code: what they cover, and what they leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoprobe.workflow import code, triggers


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small library of the same shape."""
    files = {
        "tasks/__init__.py": "",
        "tasks/grading.py": "from emoprobe.tasks import numbers\nfrom emoprobe.results import atomic\n",
        "tasks/numbers.py": "ONE = 1\n",
        "tasks/other.py": "TWO = 2\n",
        "results/atomic.py": "THREE = 3\n",
        "analysis/table.py": "from emoprobe.tasks.grading import (\n    grade,\n)\nimport emoprobe.results.atomic\n",
        "analysis/probes/__init__.py": "",
        "analysis/probes/cell.py": "from emoprobe.tasks.other import TWO\n",
    }
    root = tmp_path / "emoprobe"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(code, "LIBRARY", root)
    return root


def digest(module: str) -> str:
    code._content.cache_clear()
    code._imported.cache_clear()
    return code.code_digest(module)


@pytest.mark.parametrize(
    ("module", "changed", "covered"),
    [
        ("emoprobe.analysis.table", "analysis/table.py", True),
        ("emoprobe.analysis.table", "tasks/grading.py", True),
        ("emoprobe.analysis.table", "tasks/numbers.py", True),
        ("emoprobe.analysis.table", "tasks/other.py", False),
        ("emoprobe.analysis.table", "results/atomic.py", False),
        ("emoprobe.analysis.probes", "analysis/probes/cell.py", True),
        ("emoprobe.analysis.probes", "tasks/other.py", True),
        ("emoprobe.analysis.probes", "tasks/numbers.py", False),
    ],
)
def test_what_a_digest_covers(library: Path, module: str, changed: str, covered: bool) -> None:
    before = digest(module)
    (library / changed).write_text((library / changed).read_text() + "\nMORE = 4\n")
    assert (digest(module) != before) is covered


def test_an_unknown_module_is_an_error(library: Path) -> None:
    with pytest.raises(LookupError, match=r"emoprobe\.tasks\.missing"):
        digest("emoprobe.tasks.missing")


def test_every_rule_that_computes_has_its_code() -> None:
    found = {rule: triggers.code(rule) for rule in triggers.CODE}
    assert len(set(found.values())) == len(found)
