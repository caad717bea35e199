"""The table of what may be passed on: its weights, and what its values may be."""

from __future__ import annotations

import pytest

from candlesync.binance.public import PUBLIC_PATHS, Kind

PATHS = {path.path.removeprefix("/api/v3/"): path for path in PUBLIC_PATHS}


def many(count: int) -> str:
    return "[" + ",".join(f'"S{number}"' for number in range(count)) + "]"


@pytest.mark.parametrize(
    ("path", "values", "weight"),
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
def test_weights_are_those_of_the_documentation(path: str, values: dict[str, str], weight: int) -> None:
    assert PATHS[path].weigh(values) == weight


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


def test_nothing_in_the_table_is_private() -> None:
    names = {name for path in PUBLIC_PATHS for name in path.parameters}
    assert names.isdisjoint({"signature", "timestamp", "recvWindow", "listenKey", "apiKey"})
    assert len(PATHS) == len(PUBLIC_PATHS)
    for path in PUBLIC_PATHS:
        assert set(path.mandatory) <= set(path.parameters)
        assert path.path.startswith("/api/v3/")
