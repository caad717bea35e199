"""The table of what may be passed on: its weights, and what its values may be."""

from __future__ import annotations

import pytest

from candlesync.binance.public import Kind, PublicApi
from candlesync.binance.public_paths import SPOT_API, SPOT_US_API, USDM_API, public_api
from candlesync.binance.venue import VENUES

APIS = (SPOT_API, SPOT_US_API, USDM_API)


def many(count: int) -> str:
    return "[" + ",".join(f'"S{number}"' for number in range(count)) + "]"


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("klines", {"symbol": "BTCUSDT", "limit": "1000"}, 2),
        ("exchangeInfo", {"symbol": "BTCUSDT"}, 20),
        ("depth", {"symbol": "BTCUSDT"}, 5),
        ("depth", {"limit": "100"}, 5),
        ("depth", {"limit": "101"}, 25),
        ("depth", {"limit": "500"}, 25),
        ("depth", {"limit": "1000"}, 50),
        ("depth", {"limit": "1001"}, 250),
        ("depth", {"limit": "99999"}, 250),
        ("trades", {}, 25),
        ("historicalTrades", {}, 25),
        ("aggTrades", {}, 4),
        ("avgPrice", {}, 2),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("ticker/24hr", {"symbols": many(20)}, 2),
        ("ticker/24hr", {"symbols": many(21)}, 40),
        ("ticker/24hr", {"symbols": many(100)}, 40),
        ("ticker/24hr", {"symbols": many(101)}, 80),
        ("ticker/24hr", {}, 80),
        ("ticker/price", {"symbol": "BTCUSDT"}, 2),
        ("ticker/price", {}, 4),
        ("ticker/bookTicker", {"symbols": many(2)}, 4),
        ("ticker", {"symbol": "BTCUSDT"}, 4),
        ("ticker", {"symbols": many(50)}, 200),
        ("ticker/tradingDay", {"symbols": many(99)}, 200),
        ("executionRules", {"symbols": many(3)}, 6),
        ("executionRules", {}, 40),
    ],
)
def test_weights_are_those_of_the_documentation(path: str, values: dict[str, str], expected: int) -> None:
    assert SPOT_API.at(path).weigh(values) == expected


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("exchangeInfo", {"symbol": "BTCUSD"}, 10),
        ("klines", {"limit": "1000"}, 1),
        ("depth", {}, 1),
        ("depth", {"limit": "101"}, 5),
        ("depth", {"limit": "1000"}, 10),
        ("depth", {"limit": "5000"}, 50),
        ("trades", {}, 1),
        ("aggTrades", {}, 1),
        ("ticker/24hr", {"symbol": "BTCUSD"}, 1),
        ("ticker/24hr", {"symbols": many(21)}, 20),
        ("ticker/24hr", {}, 40),
        ("ticker/price", {"symbol": "BTCUSD"}, 1),
        ("ticker/bookTicker", {}, 2),
        ("ticker", {"symbols": many(3)}, 6),
        ("ticker", {"symbols": many(60)}, 100),
    ],
)
def test_weights_of_binance_us(path: str, values: dict[str, str], expected: int) -> None:
    assert SPOT_US_API.at(path).weigh(values) == expected


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("exchangeInfo", {}, 1),
        ("klines", {"limit": "99"}, 1),
        ("klines", {"limit": "100"}, 2),
        ("klines", {}, 5),
        ("klines", {"limit": "1000"}, 5),
        ("klines", {"limit": "1500"}, 10),
        ("markPriceKlines", {"limit": "9999"}, 10),
        ("depth", {"limit": "5"}, 2),
        ("depth", {"limit": "100"}, 5),
        ("depth", {}, 10),
        ("depth", {"limit": "1000"}, 20),
        ("trades", {}, 5),
        ("aggTrades", {}, 20),
        ("premiumIndex", {"symbol": "BTCUSDT"}, 1),
        ("premiumIndex", {}, 10),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 1),
        ("ticker/24hr", {}, 40),
        ("ticker/price", {}, 2),
        ("ticker/bookTicker", {}, 5),
        ("openInterest", {"symbol": "BTCUSDT"}, 1),
    ],
)
def test_weights_of_futures(path: str, values: dict[str, str], expected: int) -> None:
    assert USDM_API.at(path).weigh(values) == expected


def test_each_venue_has_its_table() -> None:
    assert {public_api(venue).venue for venue in VENUES.values()} == set(VENUES.values())
    with pytest.raises(KeyError):
        USDM_API.at("uiKlines")
    with pytest.raises(KeyError):
        SPOT_US_API.at("historicalTrades")  # it needs a key there


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            Kind.SYMBOL,
            ["BTCUSDT", "A-B_.1", "\uff11\uff12", "\u5e01USDT", "B" * 50],
            ["btc", "BTC/USDT", "B" * 51, "A B", ""],
        ),
        (Kind.SYMBOLS, ["[]", '["BTCUSDT"]', '["A","B"]'], ['["a"]', '["A", "B"]', "[A]", '["A"', "A"]),
        (Kind.NUMBER, ["0", "9" * 20], ["-1", "1.0", "1e3", "9" * 21, "\u0661", "None"]),
        (Kind.WORD, ["1m", "TRADING"], ["1-m", '"5m"', "SELECT *", "a" * 37, "\xe9"]),
        (Kind.WORDS, ["SPOT", '["MARGIN","LEVERAGED"]'], ["SPOT,MARGIN", "[SPOT]", "'SPOT'"]),
    ],
)
def test_odd_values_are_not_passed_on(kind: Kind, good: list[str], bad: list[str]) -> None:
    assert [value for value in good if not kind.allows(value)] == []
    assert [value for value in bad if kind.allows(value)] == []


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.venue.name)
def test_nothing_in_the_table_is_private(api: PublicApi) -> None:
    names = {name for path in api.paths for name in path.parameters}
    assert names.isdisjoint({"signature", "timestamp", "recvWindow", "listenKey", "apiKey"})
    assert len({path.path for path in api.paths}) == len(api.paths)
    roots = ("/fapi/v1/", "/fapi/v2/", "/futures/data/") if api is USDM_API else ("/api/v3/",)
    for path in api.paths:
        assert set(path.mandatory) <= set(path.parameters)
        assert path.path.startswith(roots)
        assert not api.is_private(path.path.removeprefix("/"))
        assert path.weight.words


def test_what_needs_a_key_is_known() -> None:
    assert SPOT_API.is_private("api/v3/order/test")
    assert not SPOT_API.is_private("fapi/v1/order")
    assert USDM_API.is_private("fapi/v3/account")
    assert USDM_API.is_private("fapi/v1/historicalTrades")
    assert USDM_API.is_private("sapi/v1/capital/config/getall")
    assert not USDM_API.is_private("api/v3/order")
