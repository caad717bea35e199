"""The rows of ``klines``: the twelve fields of a candle, in Binance's order and types, digit for digit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.interval import Interval

_MOST = 16
"""Texts that are kept, of some 170 KB for 1000 rows."""
_FEWEST = 50
"""Rows that are worth keeping."""


class _Text(msgspec.Struct, frozen=True):
    entries: list[Entry]
    text: str


class NewestRows:
    """Bodies of the newest rows, which most clients ask for: all but the forming one are written once a candle."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Series, int], _Text] = OrderedDict()

    def body(self, series: Series, entries: Sequence[Entry]) -> bytes:
        """What `rows_body` gives for the newest entries of a series."""
        if len(entries) < _FEWEST:
            return rows_body(entries, series.interval)
        key, closed = (series, len(entries)), list(entries[:-1])
        kept = self._kept.get(key)
        # Entries are never changed, only replaced: the same ones say the same.
        if kept is None or kept.entries != closed:
            kept = self._kept[key] = _Text(closed, _joined(closed, series.interval, in_microseconds=False))
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        newest = _joined(entries[-1:], series.interval, in_microseconds=False)
        return f"[{kept.text},{newest}]".encode("ascii")


def rows_body(entries: Iterable[Entry], interval: Interval, *, in_microseconds: bool = False) -> bytes:
    """The JSON array of all rows."""
    return f"[{_joined(entries, interval, in_microseconds=in_microseconds)}]".encode("ascii")


def _joined(entries: Iterable[Entry], interval: Interval, *, in_microseconds: bool) -> str:
    return ",".join(_row(entry.candle, interval, in_microseconds=in_microseconds) for entry in entries)


def times_of(candle: Candle, interval: Interval, *, in_microseconds: bool) -> tuple[str, str]:
    """When a candle opens and closes, as it is written."""
    opens, closes = str(candle.open_time), str(candle.close_time)
    if not in_microseconds:
        return opens, closes
    # The last microsecond of the candle. Of one that an outage cut short only the millisecond is known.
    is_whole = candle.close_time == interval.next(candle.open_time) - 1
    return f"{opens}000", f"{closes}{'999' if is_whole else '000'}"


def _row(candle: Candle, interval: Interval, *, in_microseconds: bool) -> str:
    opens, closes = times_of(candle, interval, in_microseconds=in_microseconds)
    return (
        f'[{opens},"{candle.open}","{candle.high}","{candle.low}","{candle.close}","{candle.volume}",{closes},'
        f'"{candle.quote_volume}",{candle.trades},"{candle.taker_base_volume}","{candle.taker_quote_volume}",'
        f'"{candle.unused}"]'
    )
