"""Run a script from any folder and without installing anything: python path/to/scripts NAME [arguments].

Transforms of a configuration are imported from the working directory.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Command line: the name of a script and its arguments."""
    folder = Path(__file__).absolute().parent
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: {Path(sys.executable).name} {folder} NAME …\nNAME is one of {', '.join(names)}")
    sys.path[:1] = [str(folder.parent)]
    sys.path.append(os.getcwd())
    from scripts import end_with_a_line  # the folder is on the path by now

    end_with_a_line()
    name = sys.argv.pop(1)
    runpy.run_module(f"scripts.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
