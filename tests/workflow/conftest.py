"""Copies of finished experiments, for the tests of this folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workspace import Workspace


@pytest.fixture
def after(finished: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """A copy of the finished experiment of a module, with a changed config."""

    def change(**sections: Any) -> Workspace:
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder)
        config = copy.deepcopy(finished.config)
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        return Workspace(folder, config)

    return change
