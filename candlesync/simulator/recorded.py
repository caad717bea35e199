"""The candles of a symbol as files have them.

Several intervals may be given. The finest one leads: it says what trades there were, and forming candles grow from
its rows (so where only a coarser file has candles, they are served closed but never seen forming). Longer
intervals are aggregated, but for the candles that a file of that interval has. A minute that the file leaves
out is an outage of the exchange: it does not exist in any interval.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import groupby

from candlesync.core.interval import Interval
from candlesync.simulator.bars import LENGTH, Bar, Row, aggregate, bar_of, tiles
from candlesync.simulator.source import Source

FIRST_TRADE = 1_000_000_000
"""Files do not tell trade ids; a symbol's are counted on from this arbitrary number."""


class Recorded(Source):
    """The candles of one symbol from ``files``: rows in the order of time, by interval."""

    def __init__(self, seed: object, files: Mapping[Interval, Sequence[Row]]) -> None:
        super().__init__(seed)
        finest = min(files, key=LENGTH.__getitem__)
        self._rows = {interval: {row.open_time: row for row in rows} for interval, rows in files.items()}
        # The day and the hour stand between the finest level and long intervals, to keep their sums short.
        steps = {Interval.D1, Interval.H1, Interval.M1, *files}
        levels = sorted((level for level in steps if tiles(finest, level)), key=LENGTH.__getitem__)
        self._bars: dict[Interval, list[Bar]] = {}
        for level in levels:
            finer = next((self._bars[known] for known in reversed(self._bars) if tiles(known, level)), [])
            self._bars[level] = self._level(level, finer)
        self._times = {level: [bar.open_time for bar in bars] for level, bars in self._bars.items()}
        self.levels = tuple(reversed(levels))
        self.first = min(times[0] for times in self._times.values())
        self.last = max(times[-1] for times in self._times.values())

    def bars(self, level: Interval, start: int, end: int) -> Sequence[Bar]:
        times = self._times[level]
        return self._bars[level][bisect_left(times, start) : bisect_left(times, end)]

    def row(self, interval: Interval, open_time: int) -> Row | None:
        return self._rows.get(interval, {}).get(open_time)

    def _level(self, level: Interval, finer: Sequence[Bar]) -> list[Bar]:
        rows = self._rows.get(level, {})
        bars: dict[int, Bar] = {}
        for open_time, group in groupby(finer, key=lambda bar: level.floor(bar.open_time)):
            parts = list(group)
            bars[open_time] = aggregate(parts, open_time, parts[-1].close_time)
        next_trade = FIRST_TRADE
        for open_time, row in sorted(rows.items()):
            known = bars.get(open_time)
            bars[open_time] = bar_of(row, known.first_trade if known else next_trade)
            next_trade += row.trades
        return [bar for _, bar in sorted(bars.items())]
