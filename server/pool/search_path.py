"""The folders that Python imports from, as a variable of the environment."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from server.pool.address import private_folder


def search_path(*folders: Path) -> str:
    """Return the value of `PYTHONPATH` for some folders of this machine.

    It has no way to write a folder with a colon in its path; such a folder is named by a link to it.

    Raises:
        PermissionError: the folder of the links belongs to somebody else.
    """
    return os.pathsep.join(str(_linked(folder) if os.pathsep in str(folder) else folder) for folder in folders)


def _linked(folder: Path) -> Path:
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"emoprobe-{os.getuid()}"
    private_folder(base)
    link = base / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.folder"
    with suppress(FileExistsError):  # its name says where it leads
        link.symlink_to(folder)
    return link
