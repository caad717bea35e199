"""How the first backfill of the pinned series goes: drawn on a terminal, otherwise a few lines in the log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, Self

import structlog
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

_log = structlog.get_logger(__name__)

LOOK: Final = 0.2
"""Seconds between two looks at the series."""
LOOK_LATER: Final = 2.0
"""The same, once nothing gets on: that may be so for ever."""
DRAW_AFTER: Final = 0.5
"""Seconds; what is over before is not worth a drawing that flashes up."""
FIRST_WORD: Final = 5.0
"""Seconds until the log says how it goes; then after twice as many, and so on."""
LAST_WORD: Final = 300.0
"""Seconds between two such lines at most."""
STALLED: Final = 60.0
"""Seconds in which no series has become live, after which nothing is drawn any more: Binance may be away for hours, or
a symbol not be listed."""
_NAMED: Final = 5
"""Series that are named in a line."""


async def report_backfill(series: int, waiting: Callable[[], Mapping[str, str]], console: Console | None) -> None:
    """Report until all ``series`` have been live. ``waiting`` says which have not, and why (`Supervisor.not_ready`).

    It is drawn on ``console``, above which the lines of the log go on, while it gets on; without one, the log says it.
    """
    if not series:
        return
    began = progressed = trio.current_time()
    _log.info("backfill begins", series=series)
    live, spacing, speak_at = 0, FIRST_WORD, began + FIRST_WORD
    with ExitStack() as drawn:
        bar: _Bar | None = None
        while left := waiting():
            now = trio.current_time()
            if len(left) < series - live:
                live, progressed = series - len(left), now
            if now - progressed >= STALLED:
                drawn.close()
                console = bar = None
            if console is not None and bar is None and now - began >= DRAW_AFTER:
                bar = drawn.enter_context(_Bar(console, series))
            if bar is not None:
                bar.draw(live, left, now - began)
            elif console is None and now >= speak_at:
                spacing = min(2 * spacing, LAST_WORD)
                speak_at = now + spacing
                _log.info("backfill goes on", live=live, series=series, waiting=_named(left))
            await trio.sleep(LOOK if now - progressed < STALLED else LOOK_LATER)
    _log.info("backfill done", series=series, seconds=round(trio.current_time() - began, 1))


def _named(left: Mapping[str, str]) -> list[str]:
    named = [f"{series}: {reason}" for series, reason in list(left.items())[:_NAMED]]
    return named + ([f"and {len(left) - _NAMED} more"] if len(left) > _NAMED else [])


class _Bar:
    """A line at the bottom of the terminal, gone when it is left. What the process writes meanwhile goes above it."""

    def __init__(self, console: Console, series: int) -> None:
        self._progress = Progress(
            TextColumn("backfill"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[waiting]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console,
            auto_refresh=False,  # a thread of its own; here it is drawn when there is something new
            transient=True,
            # A file is not to be redirected to the terminal.
            redirect_stdout=sys.stdout.isatty(),
            expand=True,
        )
        self._task = self._progress.add_task("", total=series, rate="", waiting="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def draw(self, live: int, left: Mapping[str, str], seconds: float) -> None:
        self._progress.update(
            self._task,
            completed=live,
            rate=f"{live / seconds:.1f}/s",
            waiting=f"waiting: {', '.join(list(left)[:_NAMED])}",
            refresh=True,
        )
