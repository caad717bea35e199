"""A guard against what no virtual clock can end: a task that never gives way, or one that cannot be cancelled.

`VirtualClock` sees tasks that keep each other busy at one instant, and has them cancelled. A loop without an await asks
for no time, and one in a shield is not cancelled. Here the processor's time tells: when much of it has gone while the
virtual time stood still, a signal breaks in, and an exception ends the task that runs, with the simulation around it.

No signal comes before that, so nothing in a history depends on the machine. And it is the processor's time, not the
wall's: a machine that is busy with something else, or was asleep, changes nothing. What waits without using any, for a
thread or a real socket, is not seen; in a simulation there is neither.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import trio

PATIENCE = 20.0
"""Seconds of the processor's time without any progress. The first backfill of all series takes about one, everything
later some thousandths."""
AGAIN = 1.0
"""Seconds until the next exception, if one was not enough: another task may be in the same loop."""
SOON = 0.01
"""Seconds until it is tried again, when no task was running just then."""
MOST = 100
"""Signals without progress after which the process ends, with whoever waits for it: all that is raised is caught."""
_SHOWN = 12
"""Frames that are told of."""
_LOOP = trio._core._run.unrolled_run.__code__


class StoodStill(BaseException):
    """Ends a simulation whose clock stands still: no `except Exception` in it is to stop this."""


class Watchdog:
    """Watches one simulation; `progressed` is to be called as long as all is well."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        """``name`` is the simulation's; ``tell`` is called, once, with where it was. It must not touch Trio."""
        self._name = name
        self._tell = tell
        self._signals = 0
        self.has_bitten = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for the block, in the main thread: the only one that signals break into."""
        before = signal.signal(signal.SIGVTALRM, self._break_in)
        try:
            self.progressed()
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)

    def progressed(self) -> None:
        """The virtual time has moved."""
        self._signals = 0
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE, AGAIN)

    def _break_in(self, _signal: int, frame: FrameType | None) -> None:
        self._signals += 1
        where = f"the clock stood still for {PATIENCE:g} s of the processor's time, at {_place(frame)}"
        if self._signals > MOST:
            print(f"{self._name}: {where}; it cannot be stopped", file=sys.stderr, flush=True)
            parent = multiprocessing.parent_process()
            if parent is not None:
                # It would wait for the outcome for ever. Whatever is started in the background ignores a SIGINT.
                os.kill(parent.pid, signal.SIGTERM)
            os._exit(70)
        if not _is_in_task(frame):
            # Trio's own loop would not survive it. In a livelock, it is the tasks' turn most of the time.
            signal.setitimer(signal.ITIMER_VIRTUAL, SOON, AGAIN)
            return
        if not self.has_bitten:
            self.has_bitten = True
            self._tell(where)
        raise StoodStill(where)


def _is_in_task(frame: FrameType | None) -> bool:
    """Whether a task was interrupted: a coroutine runs above Trio's loop."""
    while frame is not None and frame.f_code is not _LOOP:
        if frame.f_code.co_flags & inspect.CO_COROUTINE:
            return True
        frame = frame.f_back
    return False


def _place(frame: FrameType | None) -> str:
    """The innermost lines, above Trio's loop."""
    places = []
    while frame is not None and frame.f_code is not _LOOP and len(places) < _SHOWN:
        places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return ", called at ".join(places)
