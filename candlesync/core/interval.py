"""The sixteen intervals of Binance and the calendar arithmetic of their open times.

An open time is an integer of UNIX milliseconds, UTC. Fifteen intervals have a fixed length; ``1M`` is a calendar
month. ``1w`` starts on Monday 00:00 (the epoch was a Thursday, so its grid is shifted by four days). All others divide
the day, except ``3d``: Binance documents that it starts at midnight, but not on which day, so only midnight is asked
of a single open time, and the phase is that of the candles already there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

_MONDAY = 4 * DAY
"""1970-01-05, the first Monday of the epoch."""


class Interval(Enum):
    """One of Binance's kline intervals; ``Interval("1m")`` finds one by the name that Binance and clients use.

    Raises `ValueError` for any other name; names are case-sensitive (``1m`` a minute, ``1M`` a month).
    """

    S1 = "1s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    D3 = "3d"
    W1 = "1w"
    MO1 = "1M"

    _fixed: int
    """Length in milliseconds; 0 for the calendar month."""
    _offset: int
    """Where the grid of a fixed interval passes the epoch, in milliseconds.

    For ``3d`` an unproven guess, which only `floor` depends on: BTCUSDT was listed on 2017-08-17, and a report of
    2018-06-28 shows a 3d candle that opens on that day; both are a whole number of 3 days after 1970-01-02.
    """

    def __init__(self, text: str) -> None:
        unit = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK, "M": 0}[text[-1]]
        self._fixed = int(text[:-1]) * unit
        self._offset = {"1w": _MONDAY, "3d": DAY}.get(text, 0)

    def __str__(self) -> str:
        return str(self.value)

    # Enum's own hash goes through the name's; intervals are dictionary keys on the path of every frame.
    __hash__ = object.__hash__

    def is_open_time(self, time: int) -> bool:
        """Whether a candle of this interval may open at ``time``. (``3d``: any midnight; see the module.)"""
        if self is Interval.MO1:
            moment = _datetime(time)
            return time % DAY == 0 and moment.day == 1
        if self is Interval.D3:
            return time % DAY == 0
        return (time - self._offset) % self._fixed == 0

    def floor(self, time: int) -> int:
        """The open time of the candle that holds ``time``. (``3d``: see `_offset`.)"""
        if self is Interval.MO1:
            moment = _datetime(time)
            return _milliseconds(moment.year, moment.month)
        return time - (time - self._offset) % self._fixed

    def next(self, open_time: int, steps: int = 1) -> int:
        """The open time ``steps`` candles after ``open_time`` (before it, when negative)."""
        # Asked for each frame; to look a member up in its class takes longer than the arithmetic does.
        if not self._fixed:
            moment = _datetime(open_time)
            months = moment.year * 12 + moment.month - 1 + steps
            return _milliseconds(months // 12, months % 12 + 1)
        return open_time + steps * self._fixed

    def previous(self, open_time: int) -> int:
        """The open time just before ``open_time``."""
        return self.next(open_time, -1)

    def steps(self, first: int, last: int) -> int | None:
        """How many candles ``last`` opens after ``first`` (negative: before it).

        `None` when no whole number of steps leads from one to the other: the two are not on one grid.
        """
        if not self._fixed:
            if not (self.is_open_time(first) and self.is_open_time(last)):
                return None
            start, end = _datetime(first), _datetime(last)
            return (end.year - start.year) * 12 + end.month - start.month
        count, remainder = divmod(last - first, self._fixed)
        return None if remainder else count


INTERVALS = tuple(Interval)
"""All intervals, shortest first."""


def _datetime(time: int) -> datetime:
    return datetime.fromtimestamp(time // SECOND, UTC)


def _milliseconds(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * SECOND
