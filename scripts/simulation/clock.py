"""The clock of a simulation: virtual time that moves only when nothing can be done at this instant, and does so soon.

Trio's `MockClock` with a rate of 0 and a threshold of 0 tells the same times. But it asks the machine for the time on
each call, and Trio calls it several times a turn; and it cannot be subclassed, nor does Trio let another clock jump:
see `chance`, which puts this one in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

import trio

MOST_AT_ONCE = 500_000
"""How often the time is asked for at one instant, by Trio at each turn of its loop and by the tasks. The first backfill
of all series takes some hundreds; a second of the machine's is gone with so many."""
PROGRESS = 10.0
"""Simulated seconds that count as progress."""
_SAMPLE = 2_000
"""Steps of tasks that are looked at when the clock stands still."""


class VirtualClock(trio.abc.Clock):
    """Virtual time, and a guard against a livelock: tasks that keep each other busy for ever at one instant."""

    def __init__(self) -> None:
        self._now = 0.0
        self._asked = 0
        self._on_livelock: Callable[[str], None] = lambda _: None
        self._on_progress: Callable[[], None] = lambda: None
        self._progressed_at = 0.0

    def when_livelocked(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called, once, with the places that are busy when the clock moves no more."""
        self._on_livelock = tell

    def when_it_moves(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called every now and then, as long as the clock moves."""
        self._on_progress = tell

    def start_clock(self) -> None:
        """See `trio.abc.Clock`."""
        trio._core._run.GLOBAL_RUN_CONTEXT.runner.clock_autojump_threshold = 0.0

    def current_time(self) -> float:
        """Seconds."""
        self._asked += 1
        if self._asked == MOST_AT_ONCE:
            trio.lowlevel.add_instrument(_Busy(self._on_livelock))
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Never to be slept through: Trio lets the clock jump instead."""
        return 999_999_999.0 if deadline > self._now else 0.0

    def _autojump(self) -> None:
        """Called by Trio when nothing can be done at this instant."""
        jump = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline() - self._now
        if 0 < jump < inf:
            self._now += jump
            self._asked = 0
            if self._now >= self._progressed_at + PROGRESS:
                self._progressed_at = self._now
                self._on_progress()


class _Busy(trio.abc.Instrument):
    """Sees which tasks run, and where they are, for a while."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seen: Counter[str] = Counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._seen[f"{task.name} at {_place(task)}"] += 1
        if self._seen.total() == _SAMPLE:
            trio.lowlevel.remove_instrument(self)
            self._tell("the clock stands still: " + ", ".join(name for name, _ in self._seen.most_common(4)))


def _place(task: trio.lowlevel.Task) -> str:
    """The line of ours that a task waits at; that of a library if there is none."""
    places = [(frame.f_code.co_filename, line) for frame, line in task.iter_await_frames()]
    ours = [place for place in places if "site-packages" not in place[0]]
    file, line = (ours or places or [("its end", 0)])[-1]
    return f"{file}:{line}"
