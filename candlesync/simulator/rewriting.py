"""Closed candles that the exchange has changed since, as if a trade had been counted too late (`Rewritten`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from candlesync.core.interval import Interval
from candlesync.simulator.bars import ONE, Kline, bar_of, row_of
from candlesync.simulator.faults import FaultPlan, Rewritten


def rewrite(plan: FaultPlan, symbol: str, interval: Interval, klines: Sequence[Kline]) -> Sequence[Kline]:
    """The candles with those of them changed that an active fault names, and that have closed."""
    times = {
        time
        for fault in plan.active(Rewritten, symbol)
        if fault.interval in (None, interval)
        for time in fault.open_times
    }
    if not times:
        return klines
    return [with_late_trade(kline) if kline.closed and kline.row.open_time in times else kline for kline in klines]


def with_late_trade(kline: Kline) -> Kline:
    """The candle with one trade more, its last one, at the other end of what it has traded at."""
    bar = bar_of(kline.row, kline.first_trade)
    close = bar.low if bar.close == bar.high else bar.high
    volume = max(1, bar.volume // 100)
    late = msgspec.structs.replace(
        bar,
        close=close,
        volume=bar.volume + volume,
        quote_volume=bar.quote_volume + volume * close // ONE,
        trades=bar.trades + 1,
    )
    return Kline(row_of(late), kline.first_trade, closed=True)
