"""What Binance lists is read; a symbol that cannot be read is left out, and an answer without any is none."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from candlesync.binance.listing import SymbolInfo, parse_exchange_info
from candlesync.errors import UnreadableAnswer
from tests.builders import shared_data


def test_exchange_info_needs_no_more_than_a_name() -> None:
    listed = [
        {"symbol": "BTCUSDT", "status": "BREAK", "baseAsset": "BTC", "quoteAsset": "USDT", "new": []},
        {"symbol": "ETHBTC"},
        {"symbol": "not one"},
        {"symbol": 5},
        {"status": "TRADING"},
        None,
    ]
    limits = [
        {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "DAY", "intervalNum": 1, "limit": 2},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 5, "limit": 3},
        {"odd": True},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    ]
    info = parse_exchange_info(json.dumps({"symbols": listed, "rateLimits": limits}).encode())
    assert info.symbols == {
        "BTCUSDT": SymbolInfo("BTCUSDT", "BREAK", "BTC", "USDT"),
        "ETHBTC": SymbolInfo("ETHBTC"),
    }
    assert info.unreadable == 4
    assert info.weight_limit == 6000


def test_contracts_are_read_as_spot_is() -> None:
    """They have other names, and descriptions of their own."""
    contract = {
        "symbol": "BTCUSDT_260925",
        "pair": "BTCUSDT",
        "contractType": "CURRENT_QUARTER",
        "status": "TRADING",
        "baseAsset": "BTC",
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.10"}],
    }
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
    ]
    body = {"timezone": "UTC", "futuresType": "U_MARGINED", "assets": [], "symbols": [contract], "rateLimits": limits}
    info = parse_exchange_info(json.dumps(body).encode())
    assert info.symbols == {"BTCUSDT_260925": SymbolInfo("BTCUSDT_260925", "TRADING", "BTC", "USDT", tick_size="0.10")}
    assert (info.weight_limit, info.unreadable) == (2400, 0)


@pytest.mark.parametrize("limits", [[], [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "limit": 1}]])
def test_exchange_info_that_tells_no_limit(limits: list[Any]) -> None:
    body = json.dumps({"symbols": [{"symbol": "BTCUSDT"}], "rateLimits": limits}).encode()
    assert parse_exchange_info(body).weight_limit is None
    assert parse_exchange_info(b'{"symbols":[{"symbol":"BTCUSDT"}]}').weight_limit is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"symbols":[]}', b'{"symbols":[{}]}', b'{"symbols":{}}'])
def test_exchange_info_without_a_symbol_is_none(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_exchange_info(body)


@pytest.mark.parametrize(
    ("name", "symbols", "limit", "tick"),
    [
        ("exchangeInfo_20211012_full", 1695, 1200, "0.000001"),
        ("exchangeInfo_gct_weight6000", 25, 6000, "0.00001"),
    ],
)
def test_recorded_exchange_info(name: str, symbols: int, limit: int, tick: str) -> None:
    info = parse_exchange_info(gzip.decompress((shared_data() / f"rest/{name}.json.gz").read_bytes()))
    assert (len(info.symbols), info.unreadable, info.weight_limit) == (symbols, 0, limit)
    ethbtc = info.symbols["ETHBTC"]
    assert msgspec.structs.replace(ethbtc, tick_size="", step_size="") == SymbolInfo("ETHBTC", "TRADING", "ETH", "BTC")
    assert (Decimal(ethbtc.tick_size), Decimal(ethbtc.step_size)) == (Decimal(tick), Decimal("0.0001"))
    assert all(known.tick_size and known.step_size for known in info.symbols.values())


@pytest.mark.parametrize("filters", [None, 7, "PRICE_FILTER", [7], [{"filterType": 7}], [{}], {}])
def test_a_symbol_whose_filters_cannot_be_read_is_listed_all_the_same(filters: Any) -> None:
    body = json.dumps({"symbols": [{"symbol": "BTCUSDT", "filters": filters}]}).encode()
    assert parse_exchange_info(body).symbols == {"BTCUSDT": SymbolInfo("BTCUSDT")}


@pytest.mark.parametrize(
    ("told", "read"), [("0.01000000", "0.01000000"), ("5", "5"), ("0.00000000", ""), ("1e-8", ""), ("-1", ""), ("", "")]
)
def test_a_step_is_a_decimal_that_is_not_zero(told: str, read: str) -> None:
    filters = [{"filterType": "PRICE_FILTER", "tickSize": told}, {"filterType": "LOT_SIZE", "stepSize": told}]
    # Market orders have steps of their own.
    filters.append({"filterType": "MARKET_LOT_SIZE", "stepSize": "7"})
    info = parse_exchange_info(json.dumps({"symbols": [{"symbol": "BTCUSDT", "filters": filters}]}).encode())
    assert info.symbols["BTCUSDT"] == SymbolInfo("BTCUSDT", tick_size=read, step_size=read)
