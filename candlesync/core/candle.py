"""A candle: one bar of a series, as Binance gave it."""

from __future__ import annotations

import msgspec

from candlesync.core.interval import Interval

DECIMAL = r"(?:0|[1-9][0-9]{0,19}+)(?:\.[0-9]{1,20}+)?+"
"""A decimal of a candle, as a regular expression: also a JSON number as it stands, since it becomes one. Binance has at
most 8 decimals; 20 and 20 digits bound it.

Possessive: what follows a decimal is neither digit nor point, so there is nothing to go back for."""

LAST_TIME = 10**14
"""Milliseconds (year 5138): before it lies each time of a candle. Microseconds are a thousand times more: refused."""


class Series(msgspec.Struct, frozen=True, order=True):
    """One symbol at one interval: the name of a series."""

    symbol: str
    """Upper case, as Binance lists it."""
    interval: Interval

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval}"


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One bar, known within its series by its open time.

    Prices and volumes are Binance's own decimal texts, digit for digit, never through a float. All fields of
    Binance's 12-field kline row are here (developers.binance.com, "Kline/Candlestick data"), and two of our own.
    """

    open_time: int
    """UNIX milliseconds."""
    open: str
    high: str
    low: str
    close: str
    volume: str
    """In the base asset."""
    close_time: int
    """UNIX milliseconds, inclusive; earlier than the next open time by one, but for the candle before an outage."""
    quote_volume: str
    trades: int
    taker_base_volume: str
    taker_quote_volume: str
    unused: str
    """The twelfth field, which Binance tells everyone to ignore; kept so that a row can be given back whole."""
    closed: bool
    """Whether the exchange has finished it; a candle that is not closed is forming."""
    filled: bool = False
    """Whether it is not Binance's at all, but stands for a minute that the exchange itself does not have."""


def same_values(one: Candle, other: Candle) -> bool:
    """Whether two candles say the same; Binance's unused field does not count."""
    return one == other or one == msgspec.structs.replace(other, unused=one.unused)


def fill_after(before: Candle, open_time: int, next_open_time: int) -> Candle:
    """The flat candle that stands for an outage minute: no trades, at the close of the candle before it.

    Its zero volumes have as many decimals as the volumes of ``before``.
    """
    return Candle(
        open_time=open_time,
        open=before.close,
        high=before.close,
        low=before.close,
        close=before.close,
        volume=_zero_like(before.volume),
        close_time=next_open_time - 1,
        quote_volume=_zero_like(before.quote_volume),
        trades=0,
        taker_base_volume=_zero_like(before.taker_base_volume),
        taker_quote_volume=_zero_like(before.taker_quote_volume),
        unused="0",
        closed=True,
        filled=True,
    )


def _zero_like(decimal: str) -> str:
    _, point, fraction = decimal.partition(".")
    return "0" + point + "0" * len(fraction)
