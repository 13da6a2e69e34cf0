"""What is generated from the code is current, and the configurations in the pages have keys that exist."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emoprobe.config.files import study_of
from emoprobe.config.reading import read_yaml
from scripts import document_config

ROOT = Path(__file__).parents[1]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md")))
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]
EXPERIMENTS = sorted(path for path in (ROOT / "config").rglob("*.yaml") if path.parent.name != "studies")


def test_the_schema_is_current() -> None:
    assert (ROOT / "config/schema.json").read_text() == document_config.schema(), "run make schema"


@pytest.mark.parametrize("page", document_config.PAGES, ids=lambda page: str(page.name))
def test_generated_tables_are_current(page: Path) -> None:
    text = page.read_text()
    assert text == document_config.filled(text, document_config.PAGES[page]()), "run make schema"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.name))
def test_the_schema_accepts_the_shipped_configs(path: Path) -> None:
    check(read_yaml(path))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_schema_accepts_the_configs_in_the_pages(block: str, tmp_path: Path) -> None:
    # In YAML 1.2, which editors read, `off` is text.
    (tmp_path / "config.yaml").write_text(re.sub(r"thinking: (on|off)\b", r'thinking: "\1"', block))
    values = read_yaml(tmp_path / "config.yaml")
    if isinstance(values, list):
        values = {"graders": values}
    if "study" in values:
        study_of(values, folder=ROOT / "config/studies")
    else:
        check(values)


def test_a_key_without_a_default_is_required() -> None:
    assert "| `rubric` | text | required |" in document_config.tables()


def check(values: dict[str, Any]) -> None:
    """Validate a configuration, or a part of one, against the schema."""
    jsonschema.validate(values, json.loads((ROOT / "config/schema.json").read_text()))
