"""Command line of `emoprobe`. Each command imports what it needs when it runs, so that `--help` takes no time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emoprobe.command.exchange import add_export, add_import
from emoprobe.extras import EXTRAS, how_to_install

FOLDER = "folder of an experiment, such as results/pilot"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 1 after an error, which is printed to standard error.

    Args:
        argv: arguments after the name of the program; None: those of this process.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "doctor":  # whose script reads its own
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # such as of `| head`
        sys.stderr.close()
        return 1
    except Exception as error:
        message = expected(error)
        if message is None:
            raise
        print(f"emoprobe {arguments.command}: {message}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="emoprobe", description="Look at results, analyze and exchange conversations. `make run` runs experiments."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    view = commands.add_parser("view", help="open the explorer or the report in a browser")
    view.description = "Open the explorer of a folder in a browser, and print its path. Build it where it is missing."
    view.add_argument("folder", type=Path, help=FOLDER)
    view.add_argument("--report", action="store_true", help="open the report instead of the explorer")
    view.add_argument("--no-browser", action="store_true", help="only print the path")
    view.set_defaults(run=_view)

    analyze = commands.add_parser("analyze", help="make tables, figures and a report for conversations of any source")
    analyze.description = (
        "Make tables, probes, figures, explorer and report inside a folder of conversations. No model is needed."
    )
    analyze.add_argument(
        "folder", type=Path, help="folder with VARIANT/SAMPLE/trajectory.jsonl; see docs/your-experiment.md"
    )
    analyze.set_defaults(run=_analyze)

    compare = commands.add_parser("compare", help="show the verdicts of two experiments side by side")
    compare.description = (
        "Show the contrasts of two experiments side by side, with estimates, intervals and verdicts, and the settings "
        "that differ. The comparison describes; it tests nothing."
    )
    compare.add_argument("left", type=Path, help=FOLDER)
    compare.add_argument("right", type=Path, help="folder of the other experiment")
    compare.add_argument("--measure", default="correct", help="measure of the contrasts (default: correct); all: all")
    compare.set_defaults(run=_compare)

    add_import(commands.add_parser("import", help="read conversations of Inspect, lm-evaluation-harness or a table"))
    add_export(commands.add_parser("export", help="write logs of Inspect, a data set of Hugging Face, CSV or LaTeX"))

    doctor = commands.add_parser("doctor", help="check this machine before a run", add_help=False)
    doctor.set_defaults(run=_doctor)
    return parser


def _view(arguments: argparse.Namespace) -> int:
    from emoprobe.results.layout import Layout

    layout = Layout(arguments.folder)
    page = layout.report_html if arguments.report else layout.explorer
    if not page.exists():
        if arguments.report:
            raise FileNotFoundError(f"{page} does not exist; make it with `emoprobe analyze {arguments.folder}`")
        from emoprobe.stages.folder import explore_folder

        explore_folder(arguments.folder)
    print(page, flush=True)
    if not arguments.no_browser:
        import webbrowser

        if not webbrowser.open(page.absolute().as_uri()):
            print("No browser could be started: open this file in one.", file=sys.stderr)
    return 0


def _analyze(arguments: argparse.Namespace) -> int:
    from emoprobe.report.closing import summary_text
    from emoprobe.stages.folder import analyze_folder

    print(summary_text(analyze_folder(arguments.folder).report))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from emoprobe.command.compare import comparison_text

    print(comparison_text(arguments.left, arguments.right, arguments.measure))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """Run `scripts/doctor.py`, which asks the pool as well: the library imports no script and no server."""
    import os
    import subprocess

    from emoprobe.workflow.process import code_folder

    paths = [str(code_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "scripts.doctor", *arguments.rest]
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


def expected(error: Exception) -> str | None:
    """Return the message of an error that a user can act on; None for a fault of the program."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return f"{package} is not installed: {how_to_install(package)}" if package in EXTRAS else None
    if isinstance(error, OSError):
        return str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    from emoprobe.command.compare import MeasureError
    from emoprobe.config.errors import ConfigError
    from emoprobe.exchange.conversation import ExchangeError
    from emoprobe.graders.registry import GraderError
    from emoprobe.results.activation_folder import ActivationError
    from emoprobe.results.record import DamagedError
    from emoprobe.stages.folder import NothingThereError

    meant = (ConfigError, DamagedError, GraderError, ActivationError, NothingThereError, MeasureError, ExchangeError)
    return str(error) if isinstance(error, meant) else None
