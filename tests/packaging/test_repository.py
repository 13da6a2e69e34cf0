"""What a repository says about itself agrees with the code."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import emoprobe
from tests.workspace import ROOT

PAGES = sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md")))


def test_the_version_is_cited_and_has_its_changes_listed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == emoprobe.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == emoprobe.__version__


def test_the_snakefile_knows_its_version() -> None:
    assert f'VERSION = "{emoprobe.__version__}"\n' in (ROOT / "rules/common.smk").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_hooks_and_targets_call_what_there_is() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {"ruff-check", "ruff-format", "mypy", "snakefmt"} <= {hook["id"] for hook in hooks}
    for text in ((ROOT / "Makefile").read_text(), *(hook["entry"] for hook in hooks)):
        for module in re.findall(r"python -m (scripts\.\w+)", text):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_the_catalogue_of_workflows_finds_what_it_shows() -> None:
    """The layout of the catalogue's standardized usage, and of `snakedeploy deploy-workflow`."""
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
    layout = ("workflow/Snakefile", "workflow/profiles/default/config.yaml", "README.md", "LICENSE", "config/README.md")
    for path in (*layout, "config/config.yaml", ".test/config/config.yaml"):
        assert (ROOT / path).exists()
    listed = subprocess.run(
        ["make", "--question", "--print-data-base", "clean"], cwd=ROOT, capture_output=True, text=True
    )
    for target in (
        "run",
        "test",
        "docs",
        "lint",
        "format",
        "env",
        "bench",
        "chaos",
        "calibrate",
        "lock",
        "schema",
        "report",
        "watch",
        "deploy",
        "undeploy",
        "monitor",
    ):
        assert re.search(rf"^{target}:", listed.stdout, re.MULTILINE), target
