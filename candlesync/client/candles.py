"""The candles of a series that a client has, and what a message means for them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Final

import msgspec

from candlesync.core.interval import Interval
from candlesync.errors import FeedError

LATE: Final = 5
"""Candles that a server may be behind the one before: a node that was paused, a Binance whose REST is late. One that is
further behind follows another market, such as a demo that was started again."""


class Candle(msgspec.Struct, frozen=True):
    """One bar of a series, as the server sends it. Its numbers are Binance's own, digit for digit."""

    symbol: str
    interval: str
    time: int
    """Its open time, in UNIX seconds."""
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    closed: bool
    """Whether the exchange has finished it."""
    rev: int
    """The revision of the series that last changed it; 0 for what is older than the server's store, and for what was
    kept of a former life of the series."""
    filled: bool = False
    """The exchange had an outage and has no candle here: a flat one stands in its place."""

    @property
    def opened(self) -> datetime:
        """Its open time, in UTC."""
        return datetime.fromtimestamp(self.time, UTC)

    def __str__(self) -> str:
        seconds = ":%S" if self.interval == "1s" else ""
        return (
            f"{self.symbol} {self.interval}  {self.opened:%Y-%m-%d %H:%M{seconds}}  open {self.open:f}"
            f"  high {self.high:f}  low {self.low:f}  close {self.close:f}  volume {self.volume:f}"
            f"{'' if self.closed else '  forming'}{'  filled' if self.filled else ''}"
        )


class Change(Enum):
    """What a candle that was sent has changed."""

    NEWEST = "newest"
    """The newest candle, which it is now."""
    OLDER = "older"
    """A candle before the newest: a correction."""
    NOTHING = "nothing"
    """It is known, older than what is known, or older than anything here."""
    HOLE = "hole"
    """One is missing before it. It was not taken."""


def successor(time: int, interval: Interval) -> int:
    """The open time of the candle after the one of ``time``, both in UNIX seconds."""
    return interval.next(time * 1000) // 1000


def check(candles: Sequence[Candle], interval: Interval) -> None:
    """Raise `FeedError` for candles of which one is missing, out of order, or forming without being the last."""
    for index in range(1, len(candles)):
        before, after = candles[index - 1], candles[index]
        if successor(before.time, interval) != after.time:
            raise FeedError("bad_answer", f"the candle of {after.time} comes right after that of {before.time}")
        if not before.closed:
            raise FeedError("bad_answer", f"the candle of {after.time} comes after one that is still forming")


class Candles:
    """Ascending, each once, none missing between two, only the last one forming; and which have changed since when.

    What has changed and was not given yet is a set of open times, not a queue: whoever is slow is given each candle as
    it is when its turn comes. So the memory is that of the candles, and of these `most` are held.
    """

    def __init__(self, interval: Interval, most: int) -> None:
        self.interval = interval
        self.most = most
        """Candles that are held, and up to a tenth more: some are dropped at once."""
        self.list: list[Candle] = []
        self.due: int | None = None
        """The open time of the next candle that was never given; `None` while there was none at all."""
        self._changed: list[int] = []
        """A heap of open times, each once."""
        self._is_changed: set[int] = set()

    @property
    def newest(self) -> Candle | None:
        return self.list[-1] if self.list else None

    @property
    def is_due_dropped(self) -> bool:
        """Whether the candle that is due was dropped, or never here: it is older than all that are."""
        return self.due is not None and bool(self.list) and self.due < self.list[0].time

    def at(self, time: int) -> Candle | None:
        """The candle of an open time in UNIX seconds, if it is here."""
        candle = self.since(time)
        return candle if candle is not None and candle.time == time else None

    def since(self, time: int) -> Candle | None:
        """The first candle that opens at ``time`` or later."""
        place = self._place(time)
        return self.list[place] if place < len(self.list) else None

    def closed_since(self, newest: Candle) -> int:
        """How many candles have begun and closed after ``newest``."""
        last = self.list[-1]
        steps = self.interval.steps(newest.time * 1000, last.time * 1000) or 0
        return max(0, steps - (not last.closed))

    def load(self, candles: Sequence[Candle]) -> None:
        """Take what the server has now. Raises `FeedError` for candles that are not continuous.

        It may be another life of the series, so revisions are not compared. What joins on either side is kept, as
        revision 0, which any of the server's replaces; what does not join is dropped, and so are newer ones when they
        are many. A closed candle stays closed, also if this server, or its Binance, is behind the one before.
        """
        check(candles, self.interval)
        if not candles:
            return
        known = {candle.time: candle for candle in self.list}
        if self.list and candles[-1].time >= self.list[0].time:
            # It may reach back further than all that was wanted, or than what was dropped.
            candles = [candle for candle in candles if candle.time >= self.list[0].time]
        first, last = candles[0].time, candles[-1].time
        before = [_of_former_life(candle) for candle in self.list if candle.time < first]
        after = [_of_former_life(candle) for candle in self.list if candle.time > last]
        self.list = []
        if before and before[-1].closed and successor(before[-1].time, self.interval) == first:
            self.list = before
        for candle in candles:
            held = known.get(candle.time)
            is_kept = held is not None and held.closed and not candle.closed
            self.list.append(_of_former_life(held) if held is not None and is_kept else candle)
        if 0 < len(after) <= LATE and self.list[-1].closed and after[0].time == successor(last, self.interval):
            self.list += after
        if self.due is None:
            self.due = self.list[0].time
        self._is_changed.update(candle.time for candle in self.list if not _is_same(candle, known.get(candle.time)))
        self._forget_dropped()
        self._trim()

    def take(self, candle: Candle) -> Change:
        """Take one that was sent, and say what that has changed."""
        newest = self.newest
        if newest is None or candle.time > newest.time:
            # The server promises that there is no hole; a client that trusted it blindly could not notice one.
            if newest is not None and (not newest.closed or successor(newest.time, self.interval) != candle.time):
                return Change.HOLE
            self.list.append(candle)
            if self.due is None:
                self.due = candle.time
            self._mark(candle.time)
            self._trim()
            return Change.NEWEST
        place = self._place(candle.time)
        known = self.list[place]
        # Within a life a candle never goes back to an older revision, and in none from closed to forming.
        if known.time != candle.time or candle.rev <= known.rev or (known.closed and not candle.closed):
            return Change.NOTHING
        self.list[place] = candle
        if _is_same(candle, known):
            return Change.NOTHING
        self._mark(candle.time)
        return Change.NEWEST if candle.time == newest.time else Change.OLDER

    def pop_changed(self) -> Candle | None:
        """The oldest candle here that is new or has changed since it was last given, as it is now. It is given then."""
        if not self._changed:
            return None
        time = heappop(self._changed)
        self._is_changed.discard(time)
        if self.due is not None and time >= self.due:
            self.due = successor(time, self.interval)
        return self.at(time)

    def _mark(self, time: int) -> None:
        if time not in self._is_changed:
            self._is_changed.add(time)
            heappush(self._changed, time)

    def _trim(self) -> None:
        if len(self.list) > self.most + self.most // 10:
            del self.list[: len(self.list) - self.most]
            self._forget_dropped()

    def _forget_dropped(self) -> None:
        first, last = self.list[0].time, self.list[-1].time
        self._is_changed = {time for time in self._is_changed if first <= time <= last}
        self._changed = list(self._is_changed)
        heapify(self._changed)

    def _place(self, time: int) -> int:
        return bisect_left(self.list, time, key=lambda candle: candle.time)


def _of_former_life(candle: Candle) -> Candle:
    return msgspec.structs.replace(candle, rev=0)


def _is_same(candle: Candle, other: Candle | None) -> bool:
    """Whether two are the same but for their revisions."""
    return other is not None and msgspec.structs.replace(other, rev=candle.rev) == candle
