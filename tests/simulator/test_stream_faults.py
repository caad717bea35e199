"""Each fault of the streams, seen by a client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionRejected, WebSocketConnection

from candlesync.core.interval import Interval
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.faults import (
    Deaf,
    DelayedClose,
    Drop,
    Duplicates,
    Fault,
    Garbage,
    HideClose,
    Late,
    Missing,
    Refuse,
    Shutdown,
    Silent,
)
from candlesync.simulator.memory import connect_in_memory
from tests.simulator.support import MINUTE, START, events, events_for, klines, rest_of, running, simulated

BTC, ETH = "btcusdt@kline_1m", "ethusdt@kline_1m"


@asynccontextmanager
async def connected(*faults: Fault, target: str = f"ws/{BTC}") -> AsyncIterator[tuple[Exchange, WebSocketConnection]]:
    """An exchange that has run for a second, with these faults, and a connection to it."""
    async with running(simulated(faults=faults)) as exchange:
        await trio.sleep(1)
        async with connect_in_memory(exchange, f"ws://binance/{target}", message_queue_size=10**6) as connection:
            yield exchange, connection


async def refused(exchange: Exchange, target: str) -> bool:
    try:
        async with connect_in_memory(exchange, f"ws://binance/{target}"):
            return False
    except ConnectionRejected as rejection:
        return rejection.status_code == 503


def closed_with(connection: WebSocketConnection) -> int | None:
    return None if connection.closed is None else connection.closed.code


def states(found: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(event["k"]["t"], event["k"]["n"]) for event in found]


@pytest.mark.parametrize(("close_frame", "code"), [(True, 1001), (False, 1006)])
async def test_drop(close_frame: bool, code: int, autojump_clock: MockClock) -> None:
    async with connected(Drop(at=10, close_frame=close_frame)) as (exchange, connection):
        await trio.sleep(8.9)
        assert closed_with(connection) is None
        await trio.sleep(0.2)
        assert closed_with(connection) == code
        assert not await refused(exchange, f"ws/{BTC}")
        assert exchange.faults() == []


async def test_drop_of_one_symbol(autojump_clock: MockClock) -> None:
    async with connected() as (exchange, btc), connect_in_memory(exchange, f"ws://binance/ws/{ETH}") as eth:
        await events_for(eth, 5)
        exchange.add_fault(Drop(symbol="ETHUSDT"))
        await trio.sleep(0.1)
        assert (closed_with(eth), closed_with(btc)) == (1001, None)


async def test_refuse(autojump_clock: MockClock) -> None:
    async with running(simulated(faults=[Refuse(at=5, seconds=10)])) as exchange:
        assert not await refused(exchange, "ws")
        await trio.sleep(5)
        assert await refused(exchange, "ws")
        await trio.sleep(9)
        assert await refused(exchange, f"stream?streams={BTC}")
        await trio.sleep(1)
        assert not await refused(exchange, "ws")
        assert exchange.state()["connections"]["refused"] == 2

        exchange.add_fault(Refuse(symbol="BTCUSDT"))
        assert await refused(exchange, f"ws/{ETH}/{BTC}")
        assert await refused(exchange, "stream"), "whose it will be is not known yet"
        assert not await refused(exchange, f"ws/{ETH}")
        exchange.clear_faults()
        assert not await refused(exchange, f"ws/{BTC}")


async def test_silent(autojump_clock: MockClock) -> None:
    async with connected(target=f"stream?streams={BTC}/{ETH}") as (exchange, connection):
        exchange.add_fault(Silent(seconds=600))
        assert await events_for(connection, 599) == []
        await connection.send_message('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert (await events(connection, 1))[0]["id"] == 1
        exchange.add_fault(Silent(stream=ETH))
        await trio.sleep(1)
        assert {event["stream"] for event in await events_for(connection, 60)} == {BTC}
        exchange.clear_faults()
        exchange.add_fault(Silent(symbol="BTCUSDT"))
        assert {event["stream"] for event in await events_for(connection, 60)} == {ETH}


async def test_deaf(autojump_clock: MockClock) -> None:
    async with connected(target="ws") as (exchange, connection):
        exchange.add_fault(Deaf(seconds=1))
        await connection.send_message(json.dumps({"method": "SUBSCRIBE", "params": [BTC], "id": 1}))
        assert await events_for(connection, 3600) == [{"result": None, "id": 1}]
        await connection.send_message(json.dumps({"method": "SUBSCRIBE", "params": [ETH], "id": 2}))
        assert {event.get("s") for event in await events_for(connection, 10)} == {None, "ETHUSDT"}
        exchange.add_fault(Deaf(symbol="ETHUSDT"))
        async with connect_in_memory(exchange, f"ws://binance/ws/{BTC}/{ETH}") as other:
            assert {event["s"] for event in await events_for(other, 30)} == {"BTCUSDT"}


async def test_duplicates(autojump_clock: MockClock) -> None:
    async with connected(Duplicates(times=3)) as (_, connection):
        found = await events_for(connection, 70)
    assert found[::3] == found[1::3] == found[2::3]
    assert len(set(states(found[::3]))) == len(found) // 3


async def test_late(autojump_clock: MockClock) -> None:
    async with connected(Late(by_ms=90_000, seconds=70)) as (_, connection):
        found = await events_for(connection, 200)
    fresh, old = found[:20], [event for event in found if found.count(event) == 2]
    assert all(event in old for event in fresh)
    assert {event["k"]["x"] for event in old} == {True, False}
    order = [event["E"] for event in found]
    assert order != sorted(order)
    seen = [event["k"]["t"] for event in found]
    assert any(after < before for before, after in pairwise(seen)), "an earlier candle after a later one"


@pytest.mark.parametrize(("which", "closed"), [("closed", True), ("forming", False)])
async def test_late_of_one_sort(which: Any, closed: bool, autojump_clock: MockClock) -> None:
    async with connected(Late(by_ms=70_000, which=which)) as (_, connection):
        found = await events_for(connection, 300)
    assert {event["k"]["x"] for event in found if found.count(event) == 2} == {closed}


async def test_delayed_close(autojump_clock: MockClock) -> None:
    async with connected(DelayedClose(by_ms=5_000, interval=Interval.M1)) as (_, connection):
        found = await events_for(connection, 80)
    place = next(place for place, event in enumerate(found) if event["k"]["x"])
    assert found[place]["k"]["t"] == START
    assert found[place - 1]["k"]["t"] == START + MINUTE, "the next candle was seen first"
    async with connected(DelayedClose(by_ms=5_000, interval=Interval.M3)) as (_, connection):
        times = [event["k"]["t"] for event in await events_for(connection, 80)]
    assert times == sorted(times)


async def test_garbage_between_good_frames(autojump_clock: MockClock) -> None:
    async with connected(Garbage()) as (_, connection):
        texts = [str(await connection.get_message()) for _ in range(10)]
    bad, good = texts[::2], [json.loads(text) for text in texts[1::2]]
    assert all(event["e"] == "kline" and event["s"] == "BTCUSDT" for event in good)
    not_json, not_object, types, missing, symbol = bad
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(not_json)
    assert not_object == "[]"
    assert json.loads(types)["k"]["h"] is None
    assert "t" not in json.loads(missing)["k"]
    assert json.loads(symbol)["s"] == json.loads(symbol)["k"]["s"] == "WRONGUSDT"


async def test_garbage_instead_of_good_frames(autojump_clock: MockClock) -> None:
    fault = Garbage(shape="wrong_symbol", replace=True, symbol="BTCUSDT", seconds=20)
    async with connected(fault, target=f"stream?streams={BTC}/{ETH}") as (_, connection):
        found = await events_for(connection, 18)
        assert {event["data"]["s"] for event in found if event["stream"] == BTC} == {"WRONGUSDT"}
        assert {event["data"]["s"] for event in found if event["stream"] == ETH} == {"ETHUSDT"}
        await trio.sleep(2)
        assert {event["data"]["s"] for event in await events_for(connection, 20)} == {"BTCUSDT", "ETHUSDT"}


async def test_missing_on_the_stream_too(autojump_clock: MockClock) -> None:
    faults = [Missing(open_times=(START + MINUTE,), stream=True), Missing(open_times=(START + 2 * MINUTE,))]
    async with connected(*faults) as (exchange, connection):
        found = await events_for(connection, 200)
        async with rest_of(exchange) as client:
            rows = await klines(client, limit=3)
    assert {event["k"]["t"] for event in found} == {START, START + 2 * MINUTE, START + 3 * MINUTE}
    assert [row.open_time for row in rows] == [START - MINUTE, START, START + 3 * MINUTE]


@pytest.mark.parametrize("symbol", [None, "BTCUSDT"])
async def test_hide_close(symbol: str | None, autojump_clock: MockClock) -> None:
    fault = HideClose(at=10, before_ms=500, after_ms=3_000, symbol=symbol)
    async with connected(fault) as (exchange, connection):
        assert not any(event["k"]["x"] for event in await events_for(connection, 58))
        await trio.sleep(0.45)
        assert closed_with(connection) is None
        await trio.sleep(0.1)
        assert closed_with(connection) == 1006
        assert await refused(exchange, f"ws/{BTC}")
        await trio.sleep(3.4)
        assert await refused(exchange, f"ws/{BTC}")
        await trio.sleep(0.1)
        async with connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as again:
            found = await events_for(again, 30)
    assert {event["k"]["t"] for event in found} == {START + MINUTE}
    assert exchange.faults() == []


async def test_a_hidden_close_can_be_called_off(autojump_clock: MockClock) -> None:
    async with connected(HideClose(), Drop(at=70)) as (exchange, connection):
        await trio.sleep(20)
        exchange.clear_faults()
        await trio.sleep(100)
        assert closed_with(connection) is None
        assert not await refused(exchange, f"ws/{BTC}")


async def test_server_shutdown(autojump_clock: MockClock) -> None:
    async with connected(target="ws") as (exchange, raw), connect_in_memory(exchange, "ws://binance/stream") as wrapped:
        exchange.add_fault(Shutdown(seconds=600))
        told = {"e": "serverShutdown", "E": exchange.now()}
        assert await events(raw, 1) == [told]
        assert await events(wrapped, 1) == [{"stream": "!serverShutdown", "data": told}]
        await trio.sleep(599)
        async with connect_in_memory(exchange, "ws://binance/ws") as newer:
            assert closed_with(raw) is None
            await trio.sleep(2)
            assert [closed_with(each) for each in (raw, wrapped, newer)] == [1001, 1001, None]


async def test_times_may_be_the_market_s(autojump_clock: MockClock) -> None:
    exchange = simulated(minute_seconds=0.5, faults=[Refuse(at=120, seconds=60, clock="market")])
    async with running(exchange):
        await trio.sleep(0.99)
        assert not await refused(exchange, "ws")
        await trio.sleep(0.02)
        assert await refused(exchange, "ws")
        await trio.sleep(0.5)
        assert not await refused(exchange, "ws")


def test_a_fault_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="not before the start"):
        Refuse(at=-1)
