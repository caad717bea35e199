"""One symbol at one interval, as it was at any instant.

The final candles of an interval are made of the levels of its source; a candle that is not final yet is made of what
had been traded by then. Both are pure functions: the answer about an instant does not depend on when or in which
order anything was asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from itertools import groupby

from candlesync.core.interval import DAY, HOUR, MINUTE, SECOND, Interval
from candlesync.simulator.bars import LENGTH, Bar, Kline, aggregate, row_of
from candlesync.simulator.source import Shelf, Source

_MOST_KEPT = 5_000
"""About how many candles of a series are kept once they are made, of which a page takes a thousand at most; each takes
about a kilobyte."""


class Series:
    """The candles of one symbol at one interval."""

    def __init__(self, source: Source, interval: Interval) -> None:
        self.interval = interval
        self._source = source
        self._chain = source.chain(interval)
        self._span = _span(interval)
        self.first = interval.floor(source.first)
        """No candle opens before this time."""
        self._chunks: Shelf[int, tuple[list[int], list[Kline]]] = Shelf(
            _MOST_KEPT * LENGTH[interval] // (self._span or DAY) + 2
        )

    def finals(self, start: int, end: int) -> list[Kline]:
        """The final candles that open from ``start`` to before ``end``, be that in the past or to come."""
        if not self._span:
            return self._made(start, end)
        found: list[Kline] = []
        for number in range(start // self._span, -(-end // self._span)):
            chunk = self._chunks.get(number)
            if chunk is None:
                made = self._made(number * self._span, (number + 1) * self._span)
                chunk = self._chunks.put(number, ([kline.row.open_time for kline in made], made))
            times, klines = chunk
            found += klines[bisect_left(times, start) : bisect_left(times, end)]
        return found

    def final(self, open_time: int) -> Kline | None:
        """The final candle that opens at ``open_time``; `None` when there is none."""
        found = self.finals(open_time, open_time + 1)
        return found[0] if found else None

    def current(self, now: int) -> Kline | None:
        """The candle in whose time ``now`` is, as it was then: what had been traded up to and including ``now``.

        It may be closed already (an outage has begun). `None`: there is no candle at that time, or not yet.
        """
        if self.interval in self._source.levels:
            bar = self._source.holding(self.interval, now)
            if bar is None:
                return None
            open_time = bar.open_time
        else:
            open_time = self.interval.floor(now)
        final = self.final(open_time)
        if final is not None and final.row.close_time < now:
            return final
        close_time = self.interval.next(open_time) - 1
        if not self._chain:
            return self._within(open_time, close_time, now)
        parts = self._traded(open_time, now)
        if not parts:
            return None
        forming = aggregate(parts, open_time, close_time)
        return Kline(row_of(forming), forming.first_trade, closed=False)

    def first_from(self, start: int) -> Kline | None:
        """The first final candle that opens at ``start`` or later; `None` when the market ends before."""
        found = self.page(start, None, 1)
        return found[0] if found else None

    def page(
        self, start: int | None, end: int | None, limit: int, *, now: int | None = None, without: Collection[int] = ()
    ) -> list[Kline]:
        """At most ``limit`` candles, oldest first, as the REST API pages them.

        With ``start``, the oldest from there on; without it, the newest; none that opens after ``end``. With ``now``,
        as it was at that instant: the newest may be forming. Open times in ``without`` are passed over.
        """
        bounds = [time for time in (end, now, self._source.last) if time is not None]
        if start is not None:
            return self._forward(max(start, self.first), min(bounds, default=None), limit, now, without)
        return self._backward(min(bounds), limit, now, without)

    def _forward(
        self, start: int, bound: int | None, limit: int, now: int | None, without: Collection[int]
    ) -> list[Kline]:
        found: list[Kline] = []
        steps = limit
        while len(found) < limit and (bound is None or start <= bound):
            end = start + steps * LENGTH[self.interval]
            if bound is not None:
                end = min(end, bound + 1)
            found += self._shown(start, end, now, without)
            start, steps = end, steps * 2  # a hole in the data is crossed in ever longer steps
        return found[:limit]

    def _backward(self, bound: int, limit: int, now: int | None, without: Collection[int]) -> list[Kline]:
        found: list[Kline] = []
        end, steps = bound + 1, limit
        while len(found) < limit and end > self.first:
            start = max(self.first, end - steps * LENGTH[self.interval])
            found = self._shown(start, end, now, without) + found
            end, steps = start, steps * 2
        return found[-limit:]

    def _shown(self, start: int, end: int, now: int | None, without: Collection[int]) -> list[Kline]:
        shown = self.finals(start, end)
        if now is not None and shown and shown[-1].row.close_time >= now:
            forming = self.current(now)
            shown[-1:] = [forming] if forming is not None else []
        return [kline for kline in shown if kline.row.open_time not in without] if without else shown

    def _traded(self, open_time: int, now: int) -> list[Bar]:
        """What the candle from ``open_time`` was made of at ``now``: as long parts as possible."""
        parts: list[Bar] = []
        start = open_time
        for level in self._chain[:-1]:
            whole = level.floor(now)
            if whole > start:
                parts += self._source.bars(level, start, whole)
                start = whole
        bars = self._source.bars(self._chain[-1], start, now + 1)
        parts += bars
        if bars and bars[-1].close_time >= now:
            last = parts.pop()
            parts.append(self._source.tape(last).bar_between(last.open_time, now + 1, last.open_time, last.close_time))
        return parts

    def _within(self, open_time: int, close_time: int, now: int) -> Kline | None:
        """The forming candle of an interval finer than the source: a part of the trades of one of its candles."""
        bar = self._source.holding(self._source.finest, now)
        if bar is None or bar.close_time < now:
            return None
        part = self._source.tape(bar).bar_between(open_time, now + 1, open_time, close_time)
        return Kline(row_of(part), part.first_trade, closed=False)

    def _made(self, start: int, end: int) -> list[Kline]:
        if self.interval in self._source.levels:
            bars = list(self._source.bars(self.interval, start, end))
        elif self._chain:
            bars = self._aggregated(start, end)
        else:
            bars = self._divided(start, end)
        return [self._kline(bar) for bar in bars]

    def _kline(self, bar: Bar) -> Kline:
        return Kline(self._source.row(self.interval, bar.open_time) or row_of(bar), bar.first_trade, closed=True)

    def _aggregated(self, start: int, end: int) -> list[Bar]:
        floor = self.interval.floor
        begin = floor(start) if floor(start) >= start else self.interval.next(floor(start))
        stop = self.interval.next(floor(end - 1))
        found: list[Bar] = []
        bars = self._source.bars(self._chain[0], begin, stop)
        for open_time, group in groupby(bars, lambda bar: floor(bar.open_time)):
            parts = list(group)
            found.append(aggregate(parts, open_time, parts[-1].close_time))
        return found

    def _divided(self, start: int, end: int) -> list[Bar]:
        source, finest = self._source, self._source.finest
        found: list[Bar] = []
        for bar in source.bars(finest, start - LENGTH[finest] + 1, end):
            tape = source.tape(bar)
            open_time = max(bar.open_time, self.interval.floor(start))
            while open_time <= bar.close_time and open_time < end:
                after = self.interval.next(open_time)
                if open_time >= start:
                    found.append(tape.bar_between(open_time, after, open_time, min(after - 1, bar.close_time)))
                open_time = after
        return found


def _span(interval: Interval) -> int:
    """How much time is made and kept at once, in milliseconds: whole candles of the interval, not too many.

    0 for a day and more, which are few, cheap, and divide no fixed span.
    """
    if LENGTH[interval] >= DAY:
        return 0
    if LENGTH[interval] >= HOUR:
        return 32 * DAY
    return DAY if LENGTH[interval] >= MINUTE else 600 * SECOND
