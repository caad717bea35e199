"""What the exchange truly has: the measure of everything that is stored or shown."""

from __future__ import annotations

from collections.abc import Iterable

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.simulator import faults
from candlesync.simulator.bars import Row
from candlesync.simulator.exchange import Exchange

from .draw import is_outage
from .schedule import Event


class Truth:
    """The final candles of the simulated market, and which of them are hidden, for a while or for ever."""

    def __init__(self, exchange: Exchange, events: Iterable[Event], outage_pause: float) -> None:
        self.outage_pause = outage_pause
        """Seconds between the two answers that make an outage."""
        self._exchange = exchange
        self._outages: set[tuple[str | None, Interval | None, int]] = set()
        self._lacking: set[tuple[str | None, Interval | None, int]] = set()
        for event in events:
            if isinstance(event, faults.Missing):
                keys = {(event.symbol, event.interval, time) for time in event.open_times}
                self._lacking |= keys
                if is_outage(event):
                    self._outages |= keys

    def final(self, series: Series, open_time: int) -> Row | None:
        """The final row of a candle, also of one that has not closed yet; `None` where the market has none."""
        kline = self._exchange.market.series(series.symbol, series.interval).final(open_time)
        return None if kline is None else kline.row

    def has_ended(self, row: Row) -> bool:
        """Whether a candle has closed by now."""
        return row.close_time < self._exchange.now()

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
