"""Prices, tickers, book and trades agree with the candles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.simulator.support import MINUTE, START, klines, rest_of, running, simulated


@asynccontextmanager
async def after_an_hour() -> AsyncIterator[httpx.AsyncClient]:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        await trio.sleep(3630)
        yield client


async def ask(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    response = await client.get(f"/api/v3/{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def test_price_and_book_are_those_of_the_newest_candle(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        newest = (await klines(client, limit=1))[0]
        assert await ask(client, "ticker/price", symbol="BTCUSDT") == {"symbol": "BTCUSDT", "price": newest.close}
        everything = await ask(client, "ticker/price")
        assert [one["symbol"] for one in everything][:2] == ["BTCUSDT", "ETHUSDT"]
        some = await ask(client, "ticker/price", symbols='["ETHUSDT","BTCUSDT"]')
        assert [one["symbol"] for one in some] == ["ETHUSDT", "BTCUSDT"]
        best = await ask(client, "ticker/bookTicker", symbol="BTCUSDT")
        depth = await ask(client, "depth", symbol="BTCUSDT", limit=20)
        assert depth["bids"][0] == [best["bidPrice"], best["bidQty"]]
        assert depth["asks"][0] == [best["askPrice"], best["askQty"]]
        bids, asks = ([Decimal(price) for price, _ in depth[side]] for side in ("bids", "asks"))
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert bids[0] <= Decimal(newest.close) < asks[0]
        assert (len(bids), len(asks)) == (20, 20)
        info = await ask(client, "exchangeInfo", symbol="BTCUSDT")
        filters = {one["filterType"]: one for one in info["symbols"][0]["filters"]}
        assert asks[0] % Decimal(filters["PRICE_FILTER"]["tickSize"]) == 0
        assert Decimal(best["askQty"]) % Decimal(filters["LOT_SIZE"]["stepSize"]) == 0
        assert Decimal(filters["NOTIONAL"]["minNotional"]) > 0


async def test_24_hours_are_the_sum_of_their_minutes(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        day = await ask(client, "ticker/24hr", symbol="BTCUSDT")
        rows = await klines(client, limit=1000, startTime=day["openTime"])
        rows += await klines(client, limit=1000, startTime=rows[-1].open_time + 1)
        assert day["openTime"] == START + 60 * MINUTE - 24 * 60 * MINUTE
        assert day["closeTime"] == START + 60 * MINUTE + 30_000
        assert Decimal(day["volume"]) == sum(Decimal(row.volume) for row in rows)
        assert day["count"] == sum(row.trades for row in rows)
        assert Decimal(day["highPrice"]) == max(Decimal(row.high) for row in rows)
        assert Decimal(day["priceChange"]) == Decimal(rows[-1].close) - Decimal(rows[0].open)
        mini = await ask(client, "ticker/24hr", symbol="BTCUSDT", type="MINI")
        assert mini.items() <= day.items()
        assert "bidPrice" not in mini
        average = await ask(client, "avgPrice", symbol="BTCUSDT")
        recent = rows[-6:]
        assert min(Decimal(row.low) for row in recent) <= Decimal(average["price"])
        assert Decimal(average["price"]) <= max(Decimal(row.high) for row in recent)


async def test_trades_are_those_inside_the_candles(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        before, forming = await klines(client, limit=2)
        trades = await ask(client, "trades", symbol="BTCUSDT", limit=1000)
        assert len(trades) == 1000
        assert [trade["id"] for trade in trades] == list(range(trades[0]["id"], trades[0]["id"] + 1000))
        now = [trade for trade in trades if trade["time"] >= forming.open_time]
        assert len(now) == forming.trades
        assert sum(Decimal(trade["qty"]) for trade in now) == Decimal(forming.volume)
        assert trades[-1]["price"] == forming.close
        assert trades[-1]["time"] <= START + 60 * MINUTE + 30_000
        assert (
            len([trade for trade in trades if before.open_time <= trade["time"] <= before.close_time]) == before.trades
        )
        groups = await ask(client, "aggTrades", symbol="BTCUSDT", limit=5)
        assert len(groups) == 5
        assert groups[-1]["l"] == trades[-1]["id"]
        assert groups[-1]["p"] == trades[-1]["price"]


@pytest.mark.parametrize(
    ("path", "query", "weight"),
    [
        ("depth", "symbol=BTCUSDT&limit=100", 5),
        ("depth", "symbol=BTCUSDT&limit=101", 25),
        ("depth", "symbol=BTCUSDT&limit=1000", 50),
        ("depth", "symbol=BTCUSDT&limit=5000", 250),
        ("ticker/24hr", "symbol=BTCUSDT", 2),
        ("ticker/24hr", "", 80),
        ("ticker/price", "", 4),
        ("trades", "symbol=BTCUSDT", 25),
    ],
)
async def test_weights_are_those_of_the_documentation(path: str, query: str, weight: int) -> None:
    async with rest_of(simulated()) as client:
        response = await client.get(f"/api/v3/{path}?{query}")
        assert response.status_code == 200
        assert response.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("depth", "", -1102),
        ("trades", "symbol=NOSUCH", -1121),
        ("ticker/price", 'symbols=["BTCUSDT","NOSUCH"]', -1121),
        ("ticker/price", "symbols=BTCUSDT", -1135),
        ("ticker/price", 'symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
        ("ticker/24hr", "symbol=BTCUSDT&signature=x", -1104),
    ],
)
async def test_wrong_questions(path: str, query: str, code: int) -> None:
    async with rest_of(simulated()) as client:
        response = await client.get(f"/api/v3/{path}?{query}")
        assert (response.status_code, response.json()["code"]) == (400, code)


async def test_a_window_is_the_sum_of_its_minutes(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        for window, minutes in (("1m", 1), ("30m", 30), ("2h", 120), ("1d", 1440)):
            shown = await ask(client, "ticker", symbol="BTCUSDT", windowSize=window)
            assert shown["openTime"] == START + (60 - minutes) * MINUTE
            rows = await klines(client, limit=1000, startTime=shown["openTime"])
            while rows[-1].open_time < START + 60 * MINUTE:
                rows += await klines(client, limit=1000, startTime=rows[-1].open_time + 1)
            assert (shown["openPrice"], shown["lastPrice"]) == (rows[0].open, rows[-1].close)
            assert shown["count"] == sum(row.trades for row in rows)
        day = await ask(client, "ticker/24hr", symbol="BTCUSDT", type="MINI")
        assert await ask(client, "ticker", symbol="BTCUSDT", type="MINI") == day
        some = await ask(client, "ticker", symbols='["ETHUSDT","BTCUSDT"]', windowSize="7d")
        assert [one["symbol"] for one in some] == ["ETHUSDT", "BTCUSDT"]
        for window in ("0m", "60m", "24h", "8d", "1w"):
            response = await client.get("/api/v3/ticker", params={"symbol": "BTCUSDT", "windowSize": window})
            assert (response.status_code, response.json()["code"]) == (400, -1130)
        for path in ("ticker", "ticker/tradingDay"):
            assert (await client.get(f"/api/v3/{path}")).json()["code"] == -1102


async def test_a_trading_day_begins_at_midnight(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        today = await ask(client, "ticker/tradingDay", symbol="BTCUSDT")
        assert today["openTime"] == START
        west = await ask(client, "ticker/tradingDay", symbol="BTCUSDT", timeZone="-1")
        assert west["openTime"] == START + 60 * MINUTE
        east = await ask(client, "ticker/tradingDay", symbol="BTCUSDT", timeZone="8:00")
        assert east["openTime"] == START - 8 * 60 * MINUTE


async def test_older_trades_go_on_from_an_id(autojump_clock: MockClock) -> None:
    async with after_an_hour() as client:
        newest = await ask(client, "trades", symbol="BTCUSDT", limit=10)
        assert await ask(client, "historicalTrades", symbol="BTCUSDT", limit=10) == newest
        first = newest[3]["id"]
        assert await ask(client, "historicalTrades", symbol="BTCUSDT", fromId=first, limit=4) == newest[3:7]
        older = await ask(client, "historicalTrades", symbol="BTCUSDT", fromId=first - 700, limit=1000)
        assert [trade["id"] for trade in older[:704]] == list(range(first - 700, first + 4))
