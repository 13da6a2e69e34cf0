"""The notebooks in examples/ run on the results that are stored beside them, and print what is stored in them."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 1_500_000


def texts(notebook: Any) -> list[tuple[str, list[str]]]:
    """Source and text outputs of each code cell; figures are left out."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs
                       if "image/png" not in output.get("data", {})]  # fmt: skip
            cells.append((cell.source, outputs))
    return cells


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_stored_in_it(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    executed = nbformat.read(path, as_version=4)
    NotebookClient(executed, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    assert texts(executed) == texts(stored)
    assert any("image/png" in output.get("data", {}) for cell in stored.cells for output in cell.get("outputs", []))


def test_the_notebooks_exist_and_their_results_are_small() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["direction_to_steering", "load_and_plot"]
    assert sum(path.stat().st_size for path in (EXAMPLES / "results").rglob("*") if path.is_file()) < MOST_BYTES
