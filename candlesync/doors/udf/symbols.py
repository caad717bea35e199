"""The protocol's descriptions: of the server, of a symbol, and of what a search finds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from candlesync.binance.listing import SymbolInfo
from candlesync.core.candle import Candle
from candlesync.doors.udf.market import Market

_TYPE = "crypto"
_MOST_DECIMALS = 8
"""Binance's own; of a symbol of which nothing else is known."""


class Exchange(msgspec.Struct, frozen=True):
    """An exchange that symbols can be searched on."""

    value: str
    name: str
    desc: str


class SymbolType(msgspec.Struct, frozen=True):
    """A kind of symbols that can be searched."""

    name: str = "Crypto"
    value: str = _TYPE


class Configuration(msgspec.Struct, frozen=True):
    """What the server can do: the answer to ``config``."""

    supported_resolutions: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    supports_search: bool = True
    supports_group_request: bool = False
    supports_marks: bool = False
    supports_timescale_marks: bool = False
    supports_time: bool = True
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
    exchange: str
    listed_exchange: str
    has_seconds: bool
    supported_resolutions: tuple[str, ...]
    intraday_multipliers: tuple[str, ...]
    seconds_multipliers: tuple[str, ...]
    daily_multipliers: tuple[str, ...]
    weekly_multipliers: tuple[str, ...]
    monthly_multipliers: tuple[str, ...]
    type: str = _TYPE
    session: str = "24x7"
    timezone: str = "Etc/UTC"
    format: str = "price"
    has_intraday: bool = True
    has_daily: bool = True
    has_weekly_and_monthly: bool = True
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
    exchange: str
    type: str = _TYPE


def configure(market: Market) -> Configuration:
    """What the server can do for a market."""
    return Configuration(tuple(market.resolutions), (Exchange(market.exchange, market.name, market.name),))


def describe(market: Market, info: SymbolInfo, candles: Iterable[Candle] = ()) -> SymbolDescription:
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
        full_name=f"{market.exchange}:{info.symbol}",
        description=_description(info),
        minmov=int(tick.scaleb(decimals)),
        pricescale=10**decimals,
        volume_precision=_decimals([info.step_size] if info.step_size else volumes),
        currency_code=info.quote_asset,
        exchange=market.exchange,
        listed_exchange=market.exchange,
        has_seconds=bool(market.multipliers("S")),
        supported_resolutions=tuple(market.resolutions),
        intraday_multipliers=market.multipliers(""),
        seconds_multipliers=market.multipliers("S"),
        daily_multipliers=market.multipliers("D"),
        weekly_multipliers=market.multipliers("W"),
        monthly_multipliers=market.multipliers("M"),
    )


def search(
    market: Market, infos: Iterable[SymbolInfo], text: str, exchange: str, kind: str, *, limit: int
) -> list[Found]:
    """The symbols whose names or assets have ``text`` in them; first those that begin with it, and that are traded.

    ``exchange`` and ``kind`` are empty for all.
    """
    if exchange.upper() not in ("", market.exchange) or kind not in ("", _TYPE):
        return []
    # As people write a pair: BTC/USDT, btc usdt.
    wanted = _joined(text.upper().removeprefix(f"{market.exchange}:"))
    ranked = []
    for info in infos:
        if wanted in info.symbol or wanted in _joined(_description(info).upper()):
            rank = (info.symbol != wanted, not info.symbol.startswith(wanted), info.status not in ("", "TRADING"))
            ranked.append((rank, info))
    ranked.sort(key=lambda pair: pair[0])  # and otherwise as Binance has them
    return [
        Found(info.symbol, info.symbol, f"{market.exchange}:{info.symbol}", _description(info), market.exchange)
        for _, info in ranked[:limit]
    ]


def _joined(text: str) -> str:
    return "".join(text.replace("/", " ").split())


def _description(info: SymbolInfo) -> str:
    return f"{info.base_asset} / {info.quote_asset}" if info.base_asset and info.quote_asset else info.symbol


def _decimals(texts: Iterable[str]) -> int:
    """How many digits after the point any of the numbers needs."""
    needed = [-int(Decimal(text).normalize().as_tuple().exponent) for text in texts]
    return max(0, *needed) if needed else _MOST_DECIMALS
