"""Candles of another time zone: the parameter ``timeZone`` of klines, which shifts where an interval begins.

They are made of the hours of UTC; zones that are not whole hours are not simulated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from candlesync.core.interval import MINUTE, Interval
from candlesync.simulator.bars import LENGTH, Kline, aggregate, bar_of, row_of
from candlesync.simulator.market import Market
from candlesync.simulator.parameters import BadRequest

_ZONE = re.compile(r"([+ -]?)([0-9]{1,2})(?::([0-5][0-9]))?", re.ASCII)
"""A plus sign is a space when it is not escaped in the query."""


def offset_of(zone: str | None) -> int:
    """How far east of UTC a zone is, in milliseconds; raises `BadRequest` for what is none, or not simulated."""
    parts = _ZONE.fullmatch(zone or "0")
    minutes = 0
    if parts is not None:
        minutes = (int(parts[2]) * 60 + int(parts[3] or 0)) * (-1 if parts[1] == "-" else 1)
    if parts is None or not -12 * 60 <= minutes <= 14 * 60 or minutes % 60:
        raise BadRequest(-1130, "Data sent for parameter 'timeZone' is not valid.")
    return minutes * MINUTE


def zoned_page(
    market: Market,
    symbol: str,
    interval: Interval,
    offset: int,
    *,
    start: int | None,
    end: int | None,
    limit: int,
    now: int,
) -> Sequence[Kline]:
    """See ``Series.page``; ``interval`` begins as in a zone that is ``offset`` milliseconds east of UTC."""
    if offset % LENGTH[interval] == 0 and LENGTH[interval] < LENGTH[Interval.D1]:
        return market.series(symbol, interval).page(start, end, limit, now=now)

    def opens(kline: Kline) -> int:
        return interval.floor(kline.row.open_time + offset) - offset

    hours = market.series(symbol, Interval.H1)
    last = now if end is None else min(end, now)
    if start is None:
        first = max(hours.first, last - (limit + 1) * LENGTH[interval])
    else:
        first = max(hours.first, start)
        last = min(last, first + (limit + 1) * LENGTH[interval])
    first = max(hours.first, interval.floor(first + offset) - offset)
    # All of the last candle, as far as it has come.
    bound = min(now, interval.next(interval.floor(last + offset)) - offset - 1)
    parts = hours.page(first, bound, max(0, bound - first) // LENGTH[Interval.H1] + 1, now=now)
    klines = [_made(list(group), open_time, interval, offset) for open_time, group in groupby(parts, opens)]
    from_start = [kline for kline in klines if start is None or kline.row.open_time >= start]
    found = [kline for kline in from_start if end is None or kline.row.open_time <= end]
    return found[:limit] if start is not None else found[-limit:]


def _made(parts: list[Kline], open_time: int, interval: Interval, offset: int) -> Kline:
    bars = [bar_of(kline.row, kline.first_trade) for kline in parts]
    close_time = interval.next(open_time + offset) - offset - 1
    bar = aggregate(bars, open_time, close_time)
    return Kline(row_of(bar), bar.first_trade, closed=parts[-1].closed and bars[-1].close_time >= close_time)
