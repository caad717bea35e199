"""The simulator as USD-M futures: paths, weights, and the old stream paths, of which nothing comes."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from candlesync.simulator.memory import connect_in_memory
from tests.simulator.support import events, events_for, rest_of, running, simulated

KLINES = "/fapi/v1/klines"


async def used_by(client: httpx.AsyncClient, limit: int | None) -> int:
    """The weight of a klines request."""
    params = {"symbol": "BTCUSDT", "interval": "1m"} | ({} if limit is None else {"limit": str(limit)})
    before = int((await client.get("/fapi/v1/ping")).headers["X-MBX-USED-WEIGHT-1M"])
    return int((await client.get(KLINES, params=params)).headers["X-MBX-USED-WEIGHT-1M"]) - before


async def test_futures_have_paths_rows_and_weights_of_their_own(autojump_clock: MockClock) -> None:
    async with running(simulated(venue="usdm")) as exchange, rest_of(exchange) as client:
        weights = [await used_by(client, limit) for limit in (None, 1, 99, 100, 499, 500, 1000, 1001, 1500)]
        assert weights == [5, 1, 1, 2, 2, 5, 5, 10, 10]
        params = {"symbol": "BTCUSDT", "interval": "1m", "limit": "1500"}
        rows = (await client.get(KLINES, params=params)).json()
        assert (len(rows), len(rows[0])) == (1500, 12)
        assert (await client.get("/api/v3/klines", params=params)).status_code == 404
        more = await client.get(KLINES, params=params | {"limit": "1501"})
        assert more.json() == {"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."}
        price = (await client.get("/fapi/v1/ticker/price", params={"symbol": "BTCUSDT"})).json()
        assert price == {"symbol": "BTCUSDT", "price": rows[-1][4]}
        seconds = await client.get(KLINES, params=params | {"interval": "1s"})
        assert (seconds.status_code, seconds.json()["code"]) == (400, -1120)
        info = (await client.get("/fapi/v1/exchangeInfo")).json()
        assert info["rateLimits"][0]["limit"] == 2400
        assert info["symbols"][0]["contractType"] == "PERPETUAL"
        assert "isSpotTradingAllowed" not in info["symbols"][0]


@pytest.mark.parametrize("target", ["market/stream?streams=btcusdt@kline_1m", "market/ws/btcusdt@kline_1m"])
async def test_futures_streams_come_on_the_market_paths(target: str, autojump_clock: MockClock) -> None:
    async with (
        running(simulated(venue="usdm")) as exchange,
        connect_in_memory(exchange, f"ws://binance/{target}") as connection,
    ):
        (event,) = await events(connection, 1)
        event = event.get("data", event)
        assert (event["e"], event["k"]["s"], event["k"]["i"]) == ("kline", "BTCUSDT", "1m")


@pytest.mark.parametrize("target", ["stream?streams=btcusdt@kline_1m", "ws/btcusdt@kline_1m", "stream"])
async def test_on_the_old_paths_all_is_acknowledged_and_nothing_comes(target: str, autojump_clock: MockClock) -> None:
    async with (
        running(simulated(venue="usdm")) as exchange,
        connect_in_memory(exchange, f"ws://binance/{target}") as connection,
    ):
        await connection.send_message('{"method":"SUBSCRIBE","params":["ethusdt@kline_1m"],"id":1}')
        assert await events(connection, 1) == [{"result": None, "id": 1}]
        assert await events_for(connection, 300) == []
        with trio.fail_after(1):
            await connection.ping()


async def test_spot_has_no_market_paths(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        assert (await client.get(KLINES)).status_code == 404
