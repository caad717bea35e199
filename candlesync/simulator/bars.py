"""Candles of the simulated market: a `Bar` to calculate with, a `Row` to show.

Binance's prices and volumes are decimals with eight places, so a bar holds them as integers of 10⁻⁸: exact decimal
arithmetic, and no float is ever near a price. What is read from a file keeps its own text (`Kline`), because a
candle of a file is served digit for digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from candlesync.core.interval import INTERVALS, Interval

ONE = 10**8
"""One whole unit of a price or a volume, in the integers of a `Bar`."""

LENGTH = {interval: interval.next(0) for interval in INTERVALS}
"""How long a candle of each interval lasts at most, in milliseconds (a month: 31 days)."""


class Row(NamedTuple):
    """The twelve fields of Binance's kline row, in its order and types (rest-api.md, "Kline/Candlestick data")."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    quote_volume: str
    trades: int
    taker_volume: str
    taker_quote_volume: str
    unused: str


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One candle in numbers: prices and volumes in units of 10⁻⁸, times in UNIX milliseconds."""

    open_time: int
    close_time: int
    """Inclusive."""
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trades: int
    taker_volume: int
    taker_quote_volume: int
    first_trade: int
    """The id of its first trade; -1 without trades."""


class Kline(msgspec.Struct, frozen=True, gc=False):
    """A candle as it is shown: the row of the REST API and what only the stream tells."""

    row: Row
    first_trade: int
    """-1 without trades."""
    closed: bool

    @property
    def last_trade(self) -> int:
        """The id of its last trade; trade ids are contiguous. -1 without trades."""
        return self.first_trade + self.row.trades - 1 if self.row.trades else -1


def decimal_text(value: int) -> str:
    """A number of 10⁻⁸ units in Binance's notation: eight places, no exponent."""
    return f"{value // ONE}.{value % ONE:08d}"


def parse_decimal(text: str) -> int:
    """The 10⁻⁸ units of a decimal text; more than eight places are rounded half to even.

    Raises `ValueError` for a text that is not a plain, non-negative decimal number.
    """
    whole, _, places = text.partition(".")
    if not whole.isdecimal() or (places and not places.isdecimal()):
        raise ValueError(f"not a decimal number: {text!r}")
    if len(places) > 8:
        return int((Decimal(text) * ONE).to_integral_value())
    return int(whole) * ONE + int(places.ljust(8, "0"))


def row_of(bar: Bar) -> Row:
    """The row that shows a bar."""
    return Row(
        bar.open_time,
        decimal_text(bar.open),
        decimal_text(bar.high),
        decimal_text(bar.low),
        decimal_text(bar.close),
        decimal_text(bar.volume),
        bar.close_time,
        decimal_text(bar.quote_volume),
        bar.trades,
        decimal_text(bar.taker_volume),
        decimal_text(bar.taker_quote_volume),
        "0",
    )


def bar_of(row: Row, first_trade: int) -> Bar:
    """The numbers of a row; raises `ValueError` when one of them is not a decimal number."""
    return Bar(
        row.open_time,
        row.close_time,
        parse_decimal(row.open),
        parse_decimal(row.high),
        parse_decimal(row.low),
        parse_decimal(row.close),
        parse_decimal(row.volume),
        parse_decimal(row.quote_volume),
        row.trades,
        parse_decimal(row.taker_volume),
        parse_decimal(row.taker_quote_volume),
        first_trade if row.trades else -1,
    )


def flat(open_time: int, close_time: int, price: int) -> Bar:
    """A candle without trades: all prices at the last price before it, as Binance shows it."""
    return Bar(open_time, close_time, price, price, price, price, 0, 0, 0, 0, 0, -1)


def aggregate(parts: Sequence[Bar], open_time: int, close_time: int) -> Bar:
    """One candle of the candles that it is made of, oldest first; there is at least one.

    Prices are those of trades: a part without any only counts where no part has one.
    """
    priced = [part for part in parts if part.trades] or parts
    return Bar(
        open_time,
        close_time,
        priced[0].open,
        max([part.high for part in priced]),
        min([part.low for part in priced]),
        priced[-1].close,
        sum([part.volume for part in priced]),
        sum([part.quote_volume for part in priced]),
        sum([part.trades for part in priced]),
        sum([part.taker_volume for part in priced]),
        sum([part.taker_quote_volume for part in priced]),
        priced[0].first_trade,
    )


def tiles(fine: Interval, coarse: Interval) -> bool:
    """Whether each candle of ``fine`` lies within one candle of ``coarse``."""
    if fine is coarse:
        return True
    if LENGTH[fine] > LENGTH[Interval.D1]:
        return False  # three days, weeks and months divide nothing
    if LENGTH[coarse] > LENGTH[Interval.D1]:
        coarse = Interval.D1
    return LENGTH[coarse] % LENGTH[fine] == 0
