"""How long this machine kept the tests' processes from running: what a bound in real time must leave out.

That a symbol is live again within three seconds is a promise of ours. A machine that has other work to do adds times
for which nobody of ours runs, and those are measured, not guessed:

- how much later than asked for a thread of the tests' own wakes from each of its short sleeps;
- for how long the tests' process, and each that it started (and theirs), was ready to run and did not
  (``/proc/…/schedstat``).

A bound is extended by both over the time in question; of the processes, the one that waited longest counts. On a calm
machine that is next to nothing.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import trio

from tests.processes import descendants

Arguments = ParamSpec("Arguments")

_TICK = 0.02
"""Seconds that the thread sleeps."""
_GRAIN = 0.001
"""Seconds that a sleep is late on a calm machine, too."""
_TURN = 5
"""Ticks between two looks at the processes."""


def _waited(process: int, threads: str = "*") -> int:
    """For how many nanoseconds a process' threads that still run have waited for a processor."""
    waited = 0
    with suppress(OSError):
        for listed in Path(f"/proc/{process}/task").glob(f"{threads}/schedstat"):
            waited += int(listed.read_text().split()[1])
    return waited


def _waits() -> dict[int, int]:
    own = os.getpid()
    return {own: _waited(own, str(own))} | {process: _waited(process) for process in descendants(own)}


def _around(times: list[float], begin: float, end: float) -> tuple[int, int]:
    """The last of these times before the beginning, and the first after the end, as far as there is one."""
    return max(0, bisect_right(times, begin) - 1), min(len(times) - 1, bisect_left(times, end))


class Stalls:
    """What was lost so far. Times are those of `time.monotonic`, in seconds."""

    def __init__(self) -> None:
        self._times = [time.monotonic()]
        self._late = [0.0]
        """Of the thread, in all, up to each of the times."""
        self._looks = [self._times[0]]
        self._waits = [_waits()]
        """Of the processes, at each of the looks."""

    def lost(self, begin: float, end: float) -> float:
        """Seconds that were lost between two moments, the later of which may be now."""
        first, last = _around(self._times, begin, end)
        late = min(end, time.monotonic()) - self._times[last] - _TICK - _GRAIN  # and the thread sleeps still
        slept = self._late[last] - self._late[first] + max(0.0, late)
        first, last = _around(self._looks, begin, end)
        before = self._waits[first]
        waits = [waited - before.get(process, 0) for process, waited in self._waits[last].items()]
        return slept + max(waits, default=0) / 1e9

    def extended(self, since: float, bound: float) -> float:
        """After how many seconds from a moment on ``bound`` are over, those that were lost until then not counted."""
        seconds = bound
        while (longer := bound + self.lost(since, since + seconds)) > seconds + _GRAIN:
            seconds = longer
        return seconds

    def check(self, what: str, since: float, seconds: float, bound: float) -> None:
        """Assert that what began at a moment took at most so many seconds, the lost ones not counted."""
        lost = self.extended(since, bound) - bound
        print(f"{what}: {seconds:.2f} s, not {bound} s and the {lost:.2f} s that were lost")  # noqa: T201 - for `-s`
        assert seconds <= bound + lost, f"{what}: {seconds:.2f} s, not {bound} s and the {lost:.2f} s that were lost"

    async def until(
        self, what: str, holds: Callable[[], Awaitable[object]], bound: float, *, since: float | None = None
    ) -> float:
        """Wait until something holds; after how many seconds. Asserts that it does in time, as `check`."""
        since = time.monotonic() if since is None else since
        while not await holds():
            await trio.sleep(_TICK)
            if (seconds := time.monotonic() - since) > bound and seconds > self.extended(since, bound):
                break
        seconds = time.monotonic() - since
        self.check(what, since, seconds, bound)
        return seconds

    def run(self, done: threading.Event) -> None:
        """Measure until told that it is done."""
        for turn in range(10**9):
            asleep = time.monotonic()
            if done.wait(_TICK):
                return
            now = time.monotonic()
            self._late.append(self._late[-1] + max(0.0, now - asleep - _TICK - _GRAIN))
            self._times.append(now)  # last: whoever reads goes by it
            if turn % _TURN == 0:
                # What has ended meanwhile keeps what it had waited.
                self._waits.append(self._waits[-1] | _waits())
                self._looks.append(time.monotonic())


@contextmanager
def stalls() -> Iterator[Stalls]:
    """Measure for as long as the block lasts."""
    measured, done = Stalls(), threading.Event()
    thread = threading.Thread(target=measured.run, args=(done,))
    thread.start()
    try:
        yield measured
    finally:
        done.set()
        thread.join()


_DISTURBED = 0.1
"""Seconds that were lost in a test that judges by tenths of a second: it may have judged the machine."""
_TRIES = 5


def again_if_disturbed(
    test: Callable[Arguments, Awaitable[None]],
) -> Callable[Arguments, Awaitable[None]]:
    """A test whose subject itself judges by short times, such as who has been silent for how long.

    It fails where nothing was lost; where something was, it is tried again, and fails when it never passes.
    """

    @wraps(test)
    async def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        for attempt in range(_TRIES):
            with stalls() as measured:
                began = time.monotonic()
                try:
                    await test(*arguments, **named)
                except Exception:
                    if attempt == _TRIES - 1 or measured.lost(began, time.monotonic()) < _DISTURBED:
                        raise
                else:
                    return

    return run


@contextmanager
def within(bound: float) -> Iterator[None]:
    """Assert that the block takes at most so many seconds, the lost ones not counted."""
    with stalls() as measured:
        began = time.monotonic()
        yield
        measured.check("the block", began, time.monotonic() - began, bound)
