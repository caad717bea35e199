"""Each fault of REST, seen by a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from candlesync.core.interval import Interval
from candlesync.simulator.bars import Row
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.faults import (
    BodyShape,
    Fault,
    Missing,
    RestBanned,
    RestBehind,
    RestBlocked,
    RestDown,
    RestGarbage,
    RestLimited,
    Rewritten,
)
from tests.simulator.support import MINUTE, START, klines, rest_of, running, simulated

PING, KLINES = "/api/v3/ping", "/api/v3/klines"
BTC = {"symbol": "BTCUSDT", "interval": "1m"}
ETH = {"symbol": "ETHUSDT", "interval": "1m"}


@asynccontextmanager
async def asking(*faults: Fault) -> AsyncIterator[tuple[Exchange, httpx.AsyncClient]]:
    async with running(simulated(faults=faults)) as exchange, rest_of(exchange) as client:
        yield exchange, client


async def status(client: httpx.AsyncClient, path: str = PING, **query: Any) -> int:
    return (await client.get(path, params=query)).status_code


@pytest.mark.parametrize("code", [500, 502, 503])
async def test_down(code: int, autojump_clock: MockClock) -> None:
    async with asking(RestDown(at=1, seconds=2, status=code)) as (exchange, client):
        assert await status(client) == 200
        await trio.sleep(1)
        assert [await status(client), await status(client, KLINES, **BTC)] == [code, code]
        await trio.sleep(2)
        assert await status(client) == 200
        assert exchange.state()["rest"][PING] == {"200": 2, str(code): 1}


async def test_down_for_one_symbol_or_path(autojump_clock: MockClock) -> None:
    async with asking(RestDown(symbol="BTCUSDT")) as (exchange, client):
        assert await status(client, KLINES, **BTC) == 503
        assert await status(client, KLINES, **ETH) == 200
        assert await status(client) == 200
        exchange.clear_faults()
        exchange.add_fault(RestDown(path=PING))
        assert await status(client) == 503
        assert await status(client, KLINES, **BTC) == 200


async def test_slow(autojump_clock: MockClock) -> None:
    async with asking(RestDown(status=None, delay=7), RestDown(path=PING, delay=2)) as (_, client):
        assert await status(client, KLINES, **BTC) == 200
        assert trio.current_time() == 7
        assert await status(client) == 503
        assert trio.current_time() == 16


async def test_no_answer_at_all(autojump_clock: MockClock) -> None:
    async with asking(RestDown(hang=True, seconds=100), RestDown(at=100, seconds=1)) as (_, client):
        with trio.move_on_after(50):
            await status(client)
        assert trio.current_time() == 50
        assert await status(client) == 503
        assert trio.current_time() == 100
        await trio.sleep(1)
        assert await status(client) == 200


async def test_no_answer_until_it_is_cleared(autojump_clock: MockClock) -> None:
    async with asking(RestDown(hang=True)) as (exchange, client), trio.open_nursery() as nursery:

        async def clear() -> None:
            await trio.sleep(5)
            exchange.clear_faults()

        nursery.start_soon(clear)
        assert await status(client) == 200
        assert trio.current_time() == 5


@pytest.mark.parametrize(("fault", "code"), [(RestLimited, 429), (RestBanned, 418)])
async def test_limited(fault: type[RestLimited | RestBanned], code: int, autojump_clock: MockClock) -> None:
    async with asking(fault(retry_after=33)) as (exchange, client):
        response = await client.get(PING)
        assert (response.status_code, response.headers["Retry-After"]) == (code, "33")
        assert response.json()["code"] == -1003
        assert "X-MBX-USED-WEIGHT-1M" in response.headers
        exchange.clear_faults()
        exchange.add_fault(fault(retry_after=None, path=KLINES))
        response = await client.get(KLINES, params=BTC)
        assert response.status_code == code
        assert "Retry-After" not in response.headers
        assert await status(client) == 200


async def test_blocked(autojump_clock: MockClock) -> None:
    async with asking(RestBlocked()) as (_, client):
        response = await client.get(KLINES, params=BTC)
    assert response.status_code == 451
    assert "restricted location" in response.json()["msg"]


async def test_behind(autojump_clock: MockClock) -> None:
    async with asking(RestBehind(by_ms=90_000, symbol="BTCUSDT")) as (exchange, client):
        await trio.sleep(130)
        behind = await klines(client, limit=2)
        assert [row.open_time for row in behind] == [START - MINUTE, START]
        assert (await klines(client, "ETHUSDT", limit=1))[0].open_time == START + 2 * MINUTE
        assert await klines(client, startTime=START + MINUTE) == []
        exchange.clear_faults()
        current = await klines(client, limit=3)
        assert current[0].open_time == behind[1].open_time
        assert current[0].trades > behind[1].trades


async def test_missing(autojump_clock: MockClock) -> None:
    gone = (START - 2 * MINUTE, START - 3 * MINUTE)
    async with asking(Missing(open_times=gone, seconds=50)) as (exchange, client):
        lacking = [row.open_time for row in await klines(client, limit=3)]
        assert lacking == [START - 4 * MINUTE, START - MINUTE, START]
        assert gone[1] in {row.open_time for row in await klines(client, interval="3m", limit=3)}
        assert len(exchange.truth("BTCUSDT", "1m", gone[1], gone[0])) == 2
        await trio.sleep(50)
        assert gone[0] in {row.open_time for row in await klines(client, limit=3)}
        exchange.add_fault(Missing(open_times=gone, interval=None, symbol="ETHUSDT"))
        assert gone[1] not in {row.open_time for row in await klines(client, "ETHUSDT", "3m", limit=3)}
        assert gone[1] in {row.open_time for row in await klines(client, limit=5)}
        exchange.add_fault(Missing(open_times=gone, interval=Interval.M3))
        assert gone[1] in {row.open_time for row in await klines(client, limit=5)}


async def test_rewritten(autojump_clock: MockClock) -> None:
    """A closed candle has one trade more, and another close; what is true changes with it."""
    changed = (START - 2 * MINUTE, START)
    async with asking() as (exchange, client):
        before = await klines(client, limit=4)
        exchange.add_fault(Rewritten(open_times=changed, symbol="BTCUSDT", seconds=200))
        after = await klines(client, limit=4)
        assert [row for row in after if row.open_time not in changed] == [before[0], before[2]]
        assert after[3] == before[3], "it has not closed yet"
        assert after[1].trades == before[1].trades + 1
        assert after[1].close != before[1].close
        assert float(after[1].low) <= float(after[1].close) <= float(after[1].high)
        assert float(after[1].volume) > float(before[1].volume)
        assert exchange.truth("BTCUSDT", "1m", before[0].open_time, START) == after[:3]
        assert (await klines(client, "ETHUSDT", limit=2))[0] == exchange.truth("ETHUSDT", "1m", START - MINUTE, START)[
            0
        ]
        await trio.sleep(70)
        closed = (await klines(client, limit=2))[0]
        unchanged = exchange.market.series("BTCUSDT", Interval.M1).final(START)
        assert unchanged is not None
        assert closed.trades == unchanged.row.trades + 1
        await trio.sleep(200)
        assert (await klines(client, startTime=before[0].open_time, limit=3)) == before[:3]


@pytest.mark.parametrize("shape", get_args(BodyShape))
async def test_garbage_bodies(shape: BodyShape, autojump_clock: MockClock) -> None:
    async with asking(RestGarbage(shape=shape, path=KLINES)) as (_, client):
        queries: list[dict[str, Any]] = [
            {**BTC, "limit": 5},
            {**BTC, "startTime": START * 2},
            {"symbol": "NOSUCH", "interval": "1m"},
        ]
        for query in queries:
            response = await client.get(KLINES, params=query)
            assert response.status_code == 200
            with pytest.raises(msgspec.DecodeError):
                msgspec.json.decode(response.content, type=list[Row])
        assert await status(client) == 200


async def test_garbage_of_all_sorts_in_turn(autojump_clock: MockClock) -> None:
    async with asking(RestGarbage()) as (_, client):
        bodies = [(await client.get(KLINES, params={**BTC, "limit": 3})).content for _ in range(6)]
    assert len(set(bodies)) == 6
