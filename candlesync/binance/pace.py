"""When something may happen again: a connection under Binance's limit, one after a failure, a line in the log.

`SlidingWindow`, `Backoff` and `Seldom` decide, and never look at a clock. `ConnectionPace` waits, for all feeds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from random import Random

import trio

from candlesync.binance.stream import StreamSettings


class SlidingWindow:
    """At most ``limit`` events in any ``period`` seconds. The caller says what time it is."""

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self._period = period
        # One more event is allowed when the ``limit``-th last is a period ago; older ones do not matter.
        self._taken: deque[float] = deque(maxlen=limit)

    def opens(self, now: float) -> float:
        """The first moment, ``now`` or later, at which one more event is allowed."""
        if len(self._taken) < self.limit:
            return now
        return max(now, self._taken[0] + self._period)

    def take(self, now: float) -> None:
        """One more event happens ``now``, which the caller has found to be allowed."""
        self._taken.append(now)

    def used(self, now: float) -> int:
        """How many events count at ``now``."""
        return sum(moment + self._period > now for moment in self._taken)


class Backoff:
    """Pauses that double, from ``first`` to ``cap`` seconds, each shortened at random by up to a half.

    The jitter keeps the feeds of a process, cut by one event, from coming back in one moment.
    """

    def __init__(self, first: float, cap: float, random: Random) -> None:
        self._first = first
        self._cap = cap
        self._random = random
        self._longest = first

    def pause(self) -> float:
        """Seconds to wait now; the next pause will be about twice as long."""
        longest = min(self._longest, self._cap)
        self._longest = longest * 2
        return longest * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start again from the first pause."""
        self._longest = self._first


class Seldom:
    """Lets one event of a kind through in ``period`` seconds, and counts the others. For few kinds: each is kept."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._last: dict[str, float] = {}
        self._held_back = Counter[str]()

    def passes(self, kind: str, now: float) -> int | None:
        """How many of the kind were held back before this one; `None` when it is held back itself."""
        if kind in self._last and now - self._last[kind] < self._period:
            self._held_back[kind] += 1
            return None
        self._last[kind] = now
        return self._held_back.pop(kind, 0)


@dataclass(frozen=True, slots=True)
class PaceStatistics:
    """A snapshot."""

    limit: int
    """Attempts that are made at most in the period for which they count."""
    used: int
    """Attempts that count against the limit now."""
    waiting: int
    """Tasks that wait for their turn."""
    held_for: float
    """Seconds for which Binance has told us to stay away; 0 when it has not."""


class ConnectionPace:
    """Keeps the connection attempts of all feeds under Binance's limit: 300 in 5 minutes for one address.

    One is shared by all feeds of a process. Turns come in the order in which they were asked for.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._window = SlidingWindow(settings.connection_attempts, settings.connection_period)
        self._held_until = -math.inf
        # Its owner is the task whose turn is next; the others wait behind it, in order.
        self._next = trio.StrictFIFOLock()

    async def turn(self) -> None:
        """Wait until one attempt may be made, and count it. Cancelled, it has counted nothing and holds nobody up."""
        async with self._next:
            while True:
                now = trio.current_time()
                opens = max(self._window.opens(now), self._held_until)
                if opens <= now:
                    break
                # Asked again afterwards: a hold may have come, or grown, meanwhile.
                await trio.sleep_until(opens)
            # No await from here to the return: a turn is counted if and only if its caller gets it.
            self._window.take(now)

    def hold(self, seconds: float) -> None:
        """Let nobody connect for ``seconds`` from now: Binance has said so (HTTP 429 or 418)."""
        self._held_until = max(self._held_until, trio.current_time() + seconds)

    def statistics(self) -> PaceStatistics:
        now = trio.current_time()
        lock = self._next.statistics()
        waiting = lock.tasks_waiting + lock.locked
        held_for = max(0.0, self._held_until - now)
        return PaceStatistics(self._window.limit, self._window.used(now), waiting, held_for)
