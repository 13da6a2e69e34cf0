"""Configuration of the documentation site: `make docs` builds it into docs/_build, with warnings as errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import emoprobe.stages.folder  # noqa: E402, F401  define subclasses before autodoc modifies annotations of their bases
from emoprobe import __version__  # noqa: E402
from emoprobe.results.catalogue import TABLES  # noqa: E402

project = "Emoprobe"
author = "the Emoprobe contributors"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "examples/results"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Generate the same heading anchors as GitHub, so that links work in both places.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# A test executes the examples and compares their output; the site shows the stored output.
nb_execution_mode = "off"

# Reference from docstrings, in which single backticks mark code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"Emoprobe {version}"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False


def prepare(app: Any, page: str, source: list[str]) -> None:
    """Append the columns of every table to the page `tables`, and replace links to notebooks by document references.

    Sphinx resolves the symbolic link `examples` in a path and then treats the notebook as a file outside of the site.
    """
    if page == "tables":
        for table in TABLES.values():
            source[0] += f"\n## {table.name}\n\n{table.meaning} Made by `{table.rule}`.\n\n"
            source[0] += "| column | type | meaning |\n| --- | --- | --- |\n"
            for name, column in table.columns.items():
                source[0] += f"| `{name}` | {column.kind} | {column.meaning.replace('|', chr(92) + '|')} |\n"
            for start, meaning in table.families.items():
                source[0] += f"| `{start}LABEL` | by its grader | {meaning} |\n"
    source[0] = re.sub(r"\[([^]]+)\]\((examples/\w+)\.ipynb\)", r"{doc}`\1 <\2>`", source[0])


def setup(app: Any) -> None:
    """Register `prepare`."""
    app.connect("source-read", prepare)
