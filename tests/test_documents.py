"""What is generated from the code is current."""

from pathlib import Path

import jsonschema
import pytest

from emoprobe.config.reading import read_yaml
from scripts import document_config

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path for path in (ROOT / "config").rglob("*.yaml") if path.parent.name != "studies")


def test_the_schema_is_current() -> None:
    assert (ROOT / "config/schema.json").read_text() == document_config.schema(), "run make schema"


@pytest.mark.parametrize("page", document_config.PAGES, ids=lambda page: str(page.name))
def test_generated_tables_are_current(page: Path) -> None:
    text = page.read_text()
    assert text == document_config.filled(text, document_config.PAGES[page]()), "run make schema"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.name))
def test_the_schema_accepts_the_shipped_configs(path: Path) -> None:
    import json

    jsonschema.validate(read_yaml(path), json.loads((ROOT / "config/schema.json").read_text()))
