"""Resolutions, descriptions and searches of the UDF door."""

from __future__ import annotations

from decimal import Decimal

import pytest

from candlesync.binance.listing import SymbolInfo
from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue
from candlesync.core.interval import INTERVALS
from candlesync.doors.udf.market import market_of
from candlesync.doors.udf.resolutions import RESOLUTIONS, SHORT
from candlesync.doors.udf.symbols import configure, describe, search
from tests.builders import candle

MARKET = market_of(SPOT)


def test_each_interval_has_one_resolution() -> None:
    assert tuple(RESOLUTIONS.values()) == INTERVALS
    assert SHORT.keys() & RESOLUTIONS.keys() == set()
    minutes = {name: interval for name, interval in RESOLUTIONS.items() if name.isdigit()}
    assert {int(name) * 60_000 for name in minutes} == {interval.next(0) for interval in minutes.values()}


@pytest.mark.parametrize(
    ("unit", "numbers"),
    [
        ("", ["1", "3", "5", "15", "30", "60", "120", "240", "360", "480", "720"]),
        ("S", ["1"]),
        ("D", ["1", "3"]),
        ("W", ["1"]),
        ("M", ["1"]),
    ],
)
def test_the_multipliers_of_each_unit(unit: str, numbers: list[str]) -> None:
    assert MARKET.multipliers(unit) == tuple(numbers)


@pytest.mark.parametrize(("venue", "exchange"), [(SPOT_US, "BINANCEUS"), (USDM, "BINANCE")])
def test_a_venue_without_seconds_offers_none(venue: Venue, exchange: str) -> None:
    market = market_of(venue)
    assert tuple(market.resolutions) == tuple(RESOLUTIONS)[1:]
    assert market.interval("S") is market.interval("1S") is None
    assert configure(market).supported_resolutions == tuple(RESOLUTIONS)[1:]
    assert [one.value for one in configure(market).exchanges] == [exchange]
    shown = describe(market, SymbolInfo("BTCUSDT", tick_size="0.01"))
    assert (shown.has_seconds, shown.seconds_multipliers) == (False, ())
    assert (shown.exchange, shown.full_name) == (exchange, f"{exchange}:BTCUSDT")
    assert [one.full_name for one in search(market, LISTED, f"{exchange}:btcusd", exchange, "", limit=1)] == [
        f"{exchange}:BTCUSDT"
    ]


@pytest.mark.parametrize(
    ("tick", "minmov", "pricescale"),
    [
        ("0.01000000", 1, 100),
        ("0.00000001", 1, 100_000_000),
        ("1.00000000", 1, 1),
        ("0.05", 5, 100),
        ("0.25", 25, 100),
        ("2.50", 25, 10),
        ("10", 10, 1),
    ],
)
def test_prices_move_by_the_tick(tick: str, minmov: int, pricescale: int) -> None:
    shown = describe(MARKET, SymbolInfo("BTCUSDT", tick_size=tick, step_size="0.00001000"))
    assert (shown.minmov, shown.pricescale, shown.volume_precision) == (minmov, pricescale, 5)
    assert Decimal(shown.minmov) / shown.pricescale == Decimal(tick)


def test_without_a_tick_the_candles_tell_the_decimals() -> None:
    bar = candle(close="37012.31500000")  # the others have none
    shown = describe(MARKET, SymbolInfo("BTCUSDT"), [bar])
    assert (shown.minmov, shown.pricescale, shown.volume_precision) == (1, 1000, 1)
    assert describe(MARKET, SymbolInfo("BTCUSDT", tick_size="0.01"), [bar]).pricescale == 100
    assert describe(MARKET, SymbolInfo("BTCUSDT", step_size="0.001"), [bar]).volume_precision == 3
    nothing = describe(MARKET, SymbolInfo("BTCUSDT"))
    assert (nothing.pricescale, nothing.volume_precision) == (10**8, 8)


LISTED = [
    SymbolInfo("WBTCBTC", "TRADING", "WBTC", "BTC"),
    SymbolInfo("BTCDOWN", "BREAK", "BTCDOWN", "USDT"),
    SymbolInfo("BTCUSDT", "TRADING", "BTC", "USDT"),
    SymbolInfo("BTC", "TRADING"),
    SymbolInfo("ETHUSDT", "TRADING", "ETH", "USDT"),
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("btc", ["BTC", "BTCUSDT", "BTCDOWN", "WBTCBTC"]),
        ("binance:btcu", ["BTCUSDT"]),
        ("", ["WBTCBTC", "BTCUSDT", "BTC", "ETHUSDT", "BTCDOWN"]),
        ("eth / usdt", ["ETHUSDT"]),
        ("ETH/USDT", ["ETHUSDT"]),
        ("binance:eth/usdt", ["ETHUSDT"]),
        (" eth  usdt ", ["ETHUSDT"]),
        ("nothing", []),
        ("*", []),
        ("ß", []),
    ],
)
def test_a_search_gives_the_closest_first(text: str, found: list[str]) -> None:
    assert [one.symbol for one in search(MARKET, LISTED, text, "", "", limit=30)] == found
    assert [one.symbol for one in search(MARKET, LISTED, text, "BINANCE", "crypto", limit=2)] == found[:2]
    assert (
        search(MARKET, LISTED, text, "NYSE", "", limit=30) == search(MARKET, LISTED, text, "", "stock", limit=30) == []
    )
