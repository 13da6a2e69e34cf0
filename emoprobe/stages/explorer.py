"""From tables, trajectories and activations to the explorer."""

from __future__ import annotations

import shutil
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.explorer.files import write_data
from emoprobe.results import atomic
from emoprobe.results.layout import Layout

ASSETS = Path(__file__).parents[1] / "explorer" / "assets"


def write_explorer(config: Config, layout: Layout) -> None:
    """Write `explorer/`: the page last, so that it opens only when all of its data are there.

    Raises:
        FileNotFoundError: the table `trajectories` is missing.
        DamagedError, ActivationError: a file is damaged; the message names it.
        OSError: a file cannot be written.
    """
    data = layout.explorer.parent / "data"
    layout.explorer.unlink(missing_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)

    def write(name: str, content: str) -> None:
        (data / name).write_text(content, encoding="utf-8")

    write_data(config, layout, write)
    for asset in sorted(ASSETS.iterdir()):
        if asset.name != layout.explorer.name:
            atomic.write_bytes(layout.explorer.parent / asset.name, asset.read_bytes())
    atomic.write_bytes(layout.explorer, (ASSETS / layout.explorer.name).read_bytes())
