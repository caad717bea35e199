"""The rows of ``klines``: the twelve fields of a candle, in Binance's order and types, digit for digit."""

from __future__ import annotations

from collections.abc import Iterable

from candlesync.core.candle import Candle
from candlesync.core.entry import Entry
from candlesync.core.interval import Interval


def rows_body(entries: Iterable[Entry], interval: Interval, *, in_microseconds: bool = False) -> bytes:
    """The JSON array of all rows."""
    rows = (_row(entry.candle, interval, in_microseconds=in_microseconds) for entry in entries)
    return f"[{','.join(rows)}]".encode("ascii")


def _row(candle: Candle, interval: Interval, *, in_microseconds: bool) -> str:
    opens, closes = str(candle.open_time), str(candle.close_time)
    if in_microseconds:
        # The last microsecond of the candle. Of one that an outage cut short only the millisecond is known.
        is_whole = candle.close_time == interval.next(candle.open_time) - 1
        opens, closes = f"{opens}000", f"{closes}{'999' if is_whole else '000'}"
    return (
        f'[{opens},"{candle.open}","{candle.high}","{candle.low}","{candle.close}","{candle.volume}",{closes},'
        f'"{candle.quote_volume}",{candle.trades},"{candle.taker_base_volume}","{candle.taker_quote_volume}",'
        f'"{candle.unused}"]'
    )
