"""What the model servers are doing, below the bars that Snakemake's rich logger shows on a terminal.

A server takes up to minutes to start, in which no job can finish: without this a run would seem to hang.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

log = logging.getLogger("snakemake")

Status = Mapping[str, Any]
SECONDS = 1.0


class LiveServers:
    """A table of the servers that stand, as the pool last described them; nothing where there are none.

    Args:
        status: asks the pool what it does; None where none answers.
        seconds: between two questions.
    """

    def __init__(self, status: Callable[[], Status | None], seconds: float = SECONDS) -> None:
        self._status, self._seconds = status, seconds
        self._rows: list[tuple[str, ...]] = []

    def look(self) -> None:
        """Ask the pool once."""
        self._rows = [
            (
                "",
                worker["name"],
                fleet["model"],
                worker["phase"],
                f"{worker['in_flight']} in flight" if worker["in_flight"] else worker["log_line"],
            )
            for fleet in (self._status() or {}).get("fleets", [])
            if fleet["standing"]
            for worker in fleet["workers"]
        ]

    def follow(self) -> threading.Thread:
        """Ask again and again, in a thread that ends with the process; returns the thread."""
        thread = threading.Thread(target=self._follow, name="live-servers", daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        pause = threading.Event()
        try:
            while not pause.wait(self._seconds):
                self.look()
        except Exception as error:
            self._rows = []
            log.warning(f"The model servers are not shown any more ({type(error).__name__}: {error}); the run goes on.")

    def __rich__(self) -> Table:
        """The table; rich asks for it whenever it draws."""
        table = Table.grid(padding=(0, 2))
        for row in self._rows:
            table.add_row(*row)
        return table


def show_servers(handlers: Iterable[object], status: Callable[[], Status | None]) -> None:
    """Show the servers below the bars, if a log handler has any.

    Args:
        handlers: Snakemake's log handlers, of which the rich one draws bars; the others are left as they are.
        status: asks the pool what it does; None where none answers.
    """
    for handler in handlers:
        live = getattr(handler, "live_display", None)
        if isinstance(live, Live):
            servers = LiveServers(status)
            live.update(Group(live.get_renderable(), servers))
            servers.follow()
