"""The protocol's descriptions: of the server, of a symbol, and of what a search finds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from candlesync.binance.parse import SymbolInfo
from candlesync.core.candle import Candle
from candlesync.doors.udf.parameters import EXCHANGE
from candlesync.doors.udf.resolutions import RESOLUTIONS, multipliers

_TYPE = "crypto"
_MOST_DECIMALS = 8
"""Binance's own; of a symbol of which nothing else is known."""


class Exchange(msgspec.Struct, frozen=True):
    """An exchange that symbols can be searched on."""

    value: str = EXCHANGE
    name: str = "Binance"
    desc: str = "Binance"


class SymbolType(msgspec.Struct, frozen=True):
    """A kind of symbols that can be searched."""

    name: str = "Crypto"
    value: str = _TYPE


class Configuration(msgspec.Struct, frozen=True):
    """What the server can do: the answer to ``config``."""

    supports_search: bool = True
    supports_group_request: bool = False
    supports_marks: bool = False
    supports_timescale_marks: bool = False
    supports_time: bool = True
    supported_resolutions: tuple[str, ...] = tuple(RESOLUTIONS)
    exchanges: tuple[Exchange, ...] = (Exchange(),)
    symbols_types: tuple[SymbolType, ...] = (SymbolType(),)


class SymbolDescription(msgspec.Struct, frozen=True):
    """A symbol: the answer to ``symbols``; the library's ``LibrarySymbolInfo``."""

    name: str
    ticker: str
    full_name: str
    description: str
    minmov: int
    """With ``pricescale``: prices move by ``minmov / pricescale``."""
    pricescale: int
    volume_precision: int
    """Decimals of the volumes."""
    currency_code: str
    """Of the prices."""
    type: str = _TYPE
    session: str = "24x7"
    timezone: str = "Etc/UTC"
    exchange: str = EXCHANGE
    listed_exchange: str = EXCHANGE
    format: str = "price"
    has_intraday: bool = True
    intraday_multipliers: tuple[str, ...] = tuple(multipliers(""))
    has_seconds: bool = True
    seconds_multipliers: tuple[str, ...] = tuple(multipliers("S"))
    has_daily: bool = True
    daily_multipliers: tuple[str, ...] = tuple(multipliers("D"))
    has_weekly_and_monthly: bool = True
    weekly_multipliers: tuple[str, ...] = tuple(multipliers("W"))
    monthly_multipliers: tuple[str, ...] = tuple(multipliers("M"))
    supported_resolutions: tuple[str, ...] = tuple(RESOLUTIONS)
    visible_plots_set: str = "ohlcv"
    has_empty_bars: bool = False
    """Nor are there bars to be made up: the series is whole."""
    data_status: str = "streaming"


class Found(msgspec.Struct, frozen=True):
    """A symbol that a search has found."""

    symbol: str
    ticker: str
    full_name: str
    description: str
    exchange: str = EXCHANGE
    type: str = _TYPE


def describe(info: SymbolInfo, candles: Iterable[Candle] = ()) -> SymbolDescription:
    """A symbol as Binance lists it; ``candles`` tell the decimals of a symbol whose steps Binance does not say."""
    prices: list[str] = []
    volumes: list[str] = []
    for candle in candles:
        prices += (candle.open, candle.high, candle.low, candle.close)
        volumes.append(candle.volume)
    tick = Decimal(info.tick_size) if info.tick_size else Decimal(1).scaleb(-_decimals(prices))
    decimals = _decimals([str(tick)])
    return SymbolDescription(
        name=info.symbol,
        ticker=info.symbol,
        full_name=f"{EXCHANGE}:{info.symbol}",
        description=_description(info),
        minmov=int(tick.scaleb(decimals)),
        pricescale=10**decimals,
        volume_precision=_decimals([info.step_size] if info.step_size else volumes),
        currency_code=info.quote_asset,
    )


def search(infos: Iterable[SymbolInfo], text: str, exchange: str, kind: str, limit: int) -> list[Found]:
    """The symbols whose names or assets have ``text`` in them; first those that begin with it, and that are traded.

    ``exchange`` and ``kind`` are empty for all.
    """
    if exchange.upper() not in ("", EXCHANGE) or kind not in ("", _TYPE):
        return []
    wanted = text.upper().removeprefix(f"{EXCHANGE}:")
    ranked = []
    for info in infos:
        if wanted in info.symbol or wanted in _description(info).upper():
            rank = (info.symbol != wanted, not info.symbol.startswith(wanted), info.status not in ("", "TRADING"))
            ranked.append((rank, info))
    ranked.sort(key=lambda pair: pair[0])  # and otherwise as Binance has them
    return [
        Found(info.symbol, info.symbol, f"{EXCHANGE}:{info.symbol}", _description(info)) for _, info in ranked[:limit]
    ]


def _description(info: SymbolInfo) -> str:
    return f"{info.base_asset} / {info.quote_asset}" if info.base_asset and info.quote_asset else info.symbol


def _decimals(texts: Iterable[str]) -> int:
    """How many digits after the point any of the numbers needs."""
    needed = [-int(Decimal(text).normalize().as_tuple().exponent) for text in texts]
    return max(0, *needed) if needed else _MOST_DECIMALS
