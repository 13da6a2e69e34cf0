"""Each package's docstring names the packages that it imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.workspace import ROOT

LIBRARY = ROOT / "emoprobe"
PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


def imported(path: Path) -> set[str]:
    """The packages and modules of the library that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "emoprobe":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= set((node.module or "").removeprefix("emoprobe.").split(".")[:1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("emoprobe.")}
    return names & {*PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_names_what_a_package_imports(package: str) -> None:
    text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())) or ""
    # The last sentence that says so; a sentence on other libraries may come before.
    said = set(re.findall(r"`(\w+)`", text.rpartition("Imports ")[2])) & {*PACKAGES}
    imports = set().union(*(imported(path) for path in (LIBRARY / package).rglob("*.py"))) - {package}
    assert "Imports " in text
    assert said == imports
