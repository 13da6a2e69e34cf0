"""One scene for the tests of this folder."""

from __future__ import annotations

import pytest

from emoprobe.results.layout import Layout
from tests.emoprobe.explorer import scenes


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An experiment with its explorer; no test changes it."""
    return scenes.write(tmp_path_factory.mktemp("scene"))
