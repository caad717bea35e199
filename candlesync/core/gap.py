"""Gaps: ranges of open times that are missing between two candles that are there."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from candlesync.core.interval import Interval


class Gap(msgspec.Struct, frozen=True):
    """The open times from ``first`` to ``last``, both missing; a range, so that a year costs what a minute does."""

    first: int
    last: int

    def __contains__(self, open_time: int) -> bool:
        return self.first <= open_time <= self.last

    def count(self, interval: Interval) -> int:
        """How many candles are missing."""
        steps = interval.steps(self.first, self.last)
        if steps is None:
            raise ValueError(f"{self.first} and {self.last} are not on one {interval} grid")
        return steps + 1

    def open_times(self, interval: Interval) -> Iterator[int]:
        """Each missing open time, ascending."""
        time = self.first
        while time <= self.last:
            yield time
            time = interval.next(time)


def gap_between(interval: Interval, before: int, after: int) -> Gap | None:
    """What is missing between the candles that open at ``before`` and at ``after``; `None` when they are neighbours.

    Both must be on one grid and ``before`` the earlier.
    """
    first, last = interval.next(before), interval.previous(after)
    return Gap(first, last) if first <= last else None
