"""What the model servers are doing, below the bars that Snakemake's rich logger shows on a terminal.

A server takes up to minutes to start, in which no job can finish: without this a run would seem to hang.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

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
        self._found: Status = {}

    def look(self) -> None:
        """Ask the pool once."""
        self._found = self._status() or {}

    def follow(self) -> None:
        """Ask again and again, in a thread that ends with the process."""
        threading.Thread(target=self._follow, name="live-servers", daemon=True).start()

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._seconds):
            self.look()

    def __rich__(self) -> Table:
        """The table; rich asks for it whenever it draws."""
        table = Table.grid(padding=(0, 2))
        for fleet in self._found.get("fleets", []):
            for worker in fleet["workers"] if fleet["standing"] else []:
                flying = f"{worker['in_flight']} in flight" if worker["in_flight"] else ""
                table.add_row("", worker["name"], fleet["model"], worker["phase"], flying or worker["log_line"])
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
