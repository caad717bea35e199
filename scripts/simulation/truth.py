"""What the exchange truly has: the measure of everything that is stored or shown."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.simulator import faults
from candlesync.simulator.bars import Row
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.rewriting import with_late_trade

from .draw import is_outage
from .schedule import Event

ON_ITS_WAY = 60.0
"""Seconds from an answer of REST to the commit of what it has brought: a slow store takes some seconds for each."""


class Truth:
    """The final candles of the simulated market, and which of them are hidden, for a while or for ever."""

    def __init__(self, exchange: Exchange, events: Iterable[Event], outage_pause: float) -> None:
        self.outage_pause = outage_pause
        """Seconds between the two answers that make an outage."""
        self._exchange = exchange
        self._outages: set[tuple[str | None, Interval | None, int]] = set()
        self._lacking: set[tuple[str | None, Interval | None, int]] = set()
        self._rewritten: dict[tuple[str | None, Interval | None, int], float] = {}
        """Since when a candle is another one than the stream has shown, or will be once it has closed."""
        for event in events:
            if isinstance(event, faults.Missing):
                keys = {(event.symbol, event.interval, time) for time in event.open_times}
                self._lacking |= keys
                if is_outage(event):
                    self._outages |= keys
            if isinstance(event, faults.Rewritten):
                for time in event.open_times:
                    key = event.symbol, event.interval, time
                    self._rewritten[key] = min(event.at or 0.0, self._rewritten.get(key, inf))

    def final(self, series: Series, open_time: int) -> Row | None:
        """The final row of a candle, also of one that has not closed yet; `None` where the market has none.

        Of one that is rewritten, what is true now.
        """
        kline = self._exchange.market.series(series.symbol, series.interval).final(open_time)
        if kline is None:
            return None
        is_new = self._rewritten and trio.current_time() >= self._rewritten_at(series, open_time)
        return with_late_trade(kline).row if is_new else kline.row

    def is_final(self, series: Series, candle: Candle) -> bool:
        """Whether a closed candle is what the exchange has, or what the stream has shown before it was rewritten."""
        kline = self._exchange.market.series(series.symbol, series.interval).final(candle.open_time)
        if kline is None:
            return False
        if self.is_same(candle, kline.row):
            return True
        final = self.final(series, candle.open_time)
        return final is not None and self.is_same(candle, final)

    def is_correct(self, series: Series, candle: Candle) -> bool:
        """Whether a candle is what REST shows instead of another one, or has shown until a moment ago."""
        at = self._rewritten_at(series, candle.open_time)
        if at <= trio.current_time() < at + ON_ITS_WAY:
            return self.is_final(series, candle)
        final = self.final(series, candle.open_time)
        return final is not None and self.is_same(candle, final)

    def _rewritten_at(self, series: Series, open_time: int) -> float:
        return min(self._rewritten.get(key, inf) for key in _keys(series, open_time))

    def is_outage(self, series: Series, open_time: int) -> bool:
        """Whether the exchange itself has no such candle, for ever."""
        return any(key in self._outages for key in _keys(series, open_time))

    def may_lack(self, series: Series, open_time: int) -> bool:
        """Whether REST lacks the candle at some time of the simulation."""
        return any(key in self._lacking for key in _keys(series, open_time))

    def lacking(self, series: Series) -> set[int]:
        """All open times that `may_lack` is true of."""
        fits = ((series.symbol, series.interval), (None, series.interval), (series.symbol, None), (None, None))
        return {time for symbol, interval, time in self._lacking if (symbol, interval) in fits}

    def is_same(self, candle: Candle, row: Row) -> bool:
        """Whether a candle is a final row, in each of its fields."""
        return (
            candle.open_time == row.open_time
            and (candle.open, candle.high, candle.low, candle.close) == (row.open, row.high, row.low, row.close)
            and (candle.volume, candle.quote_volume) == (row.volume, row.quote_volume)
            and (candle.taker_base_volume, candle.taker_quote_volume) == (row.taker_volume, row.taker_quote_volume)
            and (candle.trades, candle.close_time) == (row.trades, row.close_time)
        )

    def is_on_the_way(self, candle: Candle, row: Row) -> bool:
        """Whether a forming candle may be what becomes of a final row."""
        return (
            candle.trades <= row.trades
            and float(candle.volume) <= float(row.volume)
            and float(candle.high) <= float(row.high)
            and float(candle.low) >= float(row.low)
            and candle.open == row.open
        )


def _keys(series: Series, time: int) -> tuple[tuple[str | None, Interval | None, int], ...]:
    return (
        (series.symbol, series.interval, time),
        (series.symbol, None, time),
        (None, series.interval, time),
        (None, None, time),
    )
