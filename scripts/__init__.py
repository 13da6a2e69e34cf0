"""The programs that rules and `make` run, as `python scripts NAME` or `python -m scripts.NAME`.

One that is interrupted ends with a line in its log, not with the traceback of whatever it was doing.
"""

import signal
import sys


def _end(number: int, _frame: object) -> None:
    """End the program; files that are being written are taken away first. A second signal ends it at once."""
    signal.signal(number, signal.SIG_DFL)
    sys.stderr.write(f"interrupted by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


def end_with_a_line() -> None:
    """End this process with one line on SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


# Python calls itself so while it looks for the module of `-m`: whoever imports this package keeps its signals.
if sys.argv[:1] == ["-m"] and sys.orig_argv[1:2] == ["-m"] and "scripts." in "".join(sys.orig_argv[2:3]):
    end_with_a_line()
