"""What the synchronizers of this process have done since it began: their counts, and how long things took.

A series' own counts end with its synchronizer: the symbol goes to another node, its task dies, nobody wants it any
more. They are kept here, so that what is counted only grows. Of the pinned series each is told apart; all others, which
clients make start as they like, are one: names that clients choose must not make the metrics grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf

import msgspec

from candlesync.core.candle import Series
from candlesync.core.healing import Healing
from candlesync.core.histogram import MOMENTS, SPELLS, Histogram
from candlesync.core.sync import Statistics


class Waiting(msgspec.Struct, frozen=True):
    """Since when frames wait for a commit: the oldest of them, and the oldest that closes a candle (seconds)."""

    since: float = inf
    """Infinite: none waits."""
    close_since: float = inf

    def and_frame(self, came_at: float, *, closes: bool) -> Waiting:
        """One more waits."""
        return self.and_all(Waiting(came_at, came_at if closes else inf))

    def and_all(self, others: Waiting) -> Waiting:
        """These wait, too."""
        return Waiting(min(self.since, others.since), min(self.close_since, others.close_since))


NOBODY = Waiting()


class Record:
    """Of one process."""

    def __init__(self, pinned: Collection[Series] = ()) -> None:
        self.healing = Healing()
        self.frame_delays = Histogram(MOMENTS)
        """Seconds from when a frame came to when its commit was published."""
        self.close_delays = Histogram(MOMENTS)
        """Of them, those of the frames that close a candle."""
        self.backfills = Histogram(SPELLS)
        """Seconds that a series' question to REST took, with all its waits."""
        self._pinned = frozenset(pinned)
        self._current: dict[Series, Statistics] = {}
        self._past: dict[Series | None, Statistics] = {}

    def shown(self, waiting: Waiting, now: float) -> None:
        """The commit of those that waited is published."""
        if waiting.since < inf:
            self.frame_delays.observe(now - waiting.since)
        if waiting.close_since < inf:
            self.close_delays.observe(now - waiting.close_since)

    def begin(self, series: Series, statistics: Statistics) -> None:
        """Read the counts of a series' synchronizer from now on; it is the only one, or takes the place of another."""
        self.end(series)
        self._current[series] = statistics

    def end(self, series: Series, statistics: Statistics | None = None) -> None:
        """The series' synchronizer has ended. With ``statistics``: if it was the one that counts there."""
        current = self._current.get(series)
        if current is None or (statistics is not None and statistics is not current):
            return
        key = self._key(series)
        self._past[key] = _sum(self._past.get(key) or Statistics(), self._current.pop(series))

    def counts(self) -> Iterator[tuple[Series | None, Statistics]]:
        """The counts of each pinned series that had any, and of all others together (`None`)."""
        sums: dict[Series | None, Statistics] = {None: Statistics(), **self._past}
        for series, statistics in self._current.items():
            key = self._key(series)
            sums[key] = _sum(sums.get(key) or Statistics(), statistics)
        yield from sums.items()

    def _key(self, series: Series) -> Series | None:
        return series if series in self._pinned else None


def _sum(one: Statistics, other: Statistics) -> Statistics:
    names = Statistics.__struct_fields__
    return msgspec.structs.replace(one, **{name: getattr(one, name) + getattr(other, name) for name in names})
