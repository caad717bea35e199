"""What the streams send, in virtual time."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.interval import INTERVALS
from candlesync.simulator.memory import connect_in_memory
from tests.simulator.support import (
    MINUTE,
    OUTAGE_BEGINS,
    OUTAGE_ENDS,
    START,
    archive,
    events,
    events_for,
    klines,
    rest_of,
    row_of_event,
    running,
    shared,
    simulated,
)

BTC = "btcusdt@kline_1m"


def grouped(found: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    candles: dict[int, list[dict[str, Any]]] = {}
    for event in found:
        candles.setdefault(event["k"]["t"], []).append(event)
    return candles


async def test_events_have_the_recorded_keys_types_and_wrapping(autojump_clock: MockClock) -> None:
    raw = [json.loads(line) for line in shared("frames/btcusdt_kline_1m_20211113.jsonl").read_text().splitlines()]
    with gzip.open(shared("frames/BINANCE-ee25be.0__2021-04-04.kline-aggTrade.txt.gz"), "rt") as file:
        lines = [json.loads(line.split(": ", 1)[1]) for line in file if '"e":"kline"' in line]
    async with running(simulated()) as exchange:
        async with connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as connection:
            ours = await events_for(connection, 130)
        async with connect_in_memory(exchange, "ws://binance/stream?streams=btcusdt@kline_1m") as connection:
            wrapped = (await events(connection, 1))[0]
    for theirs in (raw[0], next(event for event in raw if event["k"]["x"])):
        same = next(event for event in ours if event["k"]["x"] is theirs["k"]["x"])
        assert list(same) == list(theirs)
        assert list(same["k"]) == list(theirs["k"])
        assert {key: type(value) for key, value in same["k"].items()} == {
            key: type(value) for key, value in theirs["k"].items()
        }
    assert list(wrapped) == list(lines[0])
    assert wrapped["stream"] == "btcusdt@kline_1m"


async def test_a_candle_is_shown_as_it_grows_and_then_closed(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        async with connect_in_memory(exchange, "ws://binance/ws/ethusdt@kline_1m") as connection:
            found = await events_for(connection, 190)
        final = await klines(client, "ETHUSDT", limit=4)
    ended, *found = found
    assert (ended["k"]["T"], ended["k"]["x"]) == (START - 1, True), "it had not been shown closed yet"
    candles = grouped(found)
    assert list(candles) == [START, START + MINUTE, START + 2 * MINUTE, START + 3 * MINUTE]
    for candle in list(candles.values())[:3]:
        *forming, closed = candle
        assert [event["k"]["x"] for event in candle] == [False] * (len(candle) - 1) + [True]
        assert closed["E"] == closed["k"]["T"] + 5
        assert 20 <= len(forming) <= 31
        assert {after["E"] - before["E"] for before, after in pairwise(forming)} <= {2000, 4000, 6000}
        assert all(before["k"]["n"] < after["k"]["n"] for before, after in pairwise(forming))
        assert closed["k"]["L"] - closed["k"]["f"] + 1 == closed["k"]["n"]
    closes = [row_of_event(event) for event in found if event["k"]["x"]]
    assert closes == final[:3]
    firsts = [candle[-1]["k"]["f"] for candle in candles.values()]
    lasts = [candle[-1]["k"]["L"] for candle in candles.values()]
    assert all(last + 1 == first for last, first in zip(lasts[:3], firsts[1:], strict=True))


async def test_every_interval_has_a_stream(autojump_clock: MockClock) -> None:
    names = "/".join(f"btcusdt@kline_{interval}" for interval in INTERVALS)
    async with running(simulated(start=START + 86_400_000 - 5_000)) as exchange:
        async with connect_in_memory(exchange, f"ws://binance/stream?streams={names}") as connection:
            found = await events_for(connection, 10)
        truth = {
            event["stream"]: exchange.truth("BTCUSDT", event["data"]["k"]["i"], event["data"]["k"]["t"], START * 2)[0]
            for event in found
            if event["data"]["k"]["x"]
        }
    assert {event["stream"] for event in found} == set(names.split("/"))
    assert {event["data"]["k"]["i"] for event in found} == {str(interval) for interval in INTERVALS}
    # Those that end with a Monday.
    closing = {"1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d"}
    assert {name.rsplit("_")[1] for name in truth} - {"3d"} == closing - {"3d"}
    for event in found:
        if event["data"]["k"]["x"] and event["data"]["k"]["i"] != "1s":
            assert row_of_event(event["data"]) == truth[event["stream"]]


async def test_seconds_are_updated_each_second(autojump_clock: MockClock) -> None:
    exchange = simulated()
    async with running(exchange), connect_in_memory(exchange, "ws://binance/ws/btcusdt@kline_1s") as connection:
        found = await events_for(connection, 30)
    closed = [event["k"]["t"] for event in found if event["k"]["x"]]
    assert closed == list(range(START - 1000, START + 29_000, 1000))
    forming = [event["E"] for event in found if not event["k"]["x"]]
    assert {(after - before) % 1000 for before, after in pairwise(forming)} == {0}


async def test_a_candle_without_trades(autojump_clock: MockClock) -> None:
    exchange = simulated(klines=archive("BTCUSDT", "1m", "2023-03-24"), start=OUTAGE_BEGINS - 5 * MINUTE)
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as connection:
        found = await events_for(connection, 4 * 60)
    assert len(found) == 4, "one close frame a minute, and nothing between them"
    for event in found:
        k = event["k"]
        assert (k["x"], k["n"], k["f"], k["L"], k["v"]) == (True, 0, -1, -1, "0.00000000")


async def test_a_thin_pair_may_be_silent_for_minutes(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange:
        async with connect_in_memory(exchange, "ws://binance/ws/quietbtc@kline_1m") as connection:
            found = await events_for(connection, 3 * 3600)
        truth = exchange.truth("QUIETBTC", "1m", START, START + 3 * 60 * MINUTE)
    assert len(truth) == 180
    closed = [row_of_event(event) for event in found if event["k"]["x"]]
    assert closed == [row for row in truth if row.trades][: len(closed)]
    assert 3 <= len(closed) < 40
    assert all(event["E"] == event["k"]["T"] + 2401 for event in found if event["k"]["x"])
    gaps = [after["E"] - before["E"] for before, after in pairwise(found)]
    assert max(gaps) > 10 * MINUTE


async def test_the_outage_of_2023_03_24(autojump_clock: MockClock) -> None:
    exchange = simulated(
        symbols=(), klines=archive("BTCUSDT", "1m", "2023-03-24"), start=OUTAGE_BEGINS - OUTAGE_BEGINS % MINUTE + 1000
    )
    async with running(exchange), rest_of(exchange) as client:
        names = "btcusdt@kline_1m/btcusdt@kline_15m/btcusdt@kline_4h"
        async with connect_in_memory(exchange, f"ws://binance/stream?streams={names}") as connection:
            found = [
                event["data"] for event in await events_for(connection, (OUTAGE_ENDS - OUTAGE_BEGINS) / 1000 + 120)
            ]
        rows = await klines(client, limit=3)
    at_end, later = found[:2], found[2:]
    assert [(event["k"]["i"], event["k"]["x"], event["k"]["T"], event["E"]) for event in at_end] == [
        ("1m", True, OUTAGE_BEGINS, OUTAGE_BEGINS + 5),
        ("15m", True, OUTAGE_BEGINS, OUTAGE_BEGINS + 5),
    ]
    assert all(event["E"] >= OUTAGE_ENDS for event in later)
    closed = [row_of_event(event) for event in [*at_end, *later] if event["k"]["x"] and event["k"]["i"] == "1m"]
    assert closed == rows[:-1]
    assert [row.open_time for row in rows[:2]] == [OUTAGE_BEGINS - OUTAGE_BEGINS % MINUTE, OUTAGE_ENDS]


async def test_frames_do_not_depend_on_who_else_listens(autojump_clock: MockClock) -> None:
    name = f"ws://binance/ws/{BTC}"
    found: list[list[dict[str, Any]]] = []
    for extra in (0, 3):
        async with running(simulated()) as exchange, trio.open_nursery() as nursery:
            for _ in range(extra):
                nursery.start_soon(listen, exchange, name)
            async with connect_in_memory(exchange, name) as connection:
                found.append(await events_for(connection, 100))
            nursery.cancel_scope.cancel()
    assert found[0] == found[1]


async def listen(exchange: Any, name: str) -> None:
    async with connect_in_memory(exchange, name) as connection:
        await events_for(connection, 33)


@pytest.mark.parametrize(("minute", "shortest", "beat"), [(60.0, 0.05, 2000), (0.25, 0.05, 12_000), (0.25, 0.0, 2000)])
async def test_updates_are_never_closer_than_the_settings_say(
    minute: float, shortest: float, beat: int, autojump_clock: MockClock
) -> None:
    exchange = simulated(minute_seconds=minute, shortest_update=shortest, symbols=("BTCUSDT",))
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as connection:
        found = await events_for(connection, minute * 2)
    times = [event["E"] for event in found if not event["k"]["x"]]
    steps = {after - before for before, after in pairwise(times)}
    assert beat in steps
    assert all(step % beat == 0 for step in steps)


async def test_a_machine_that_is_late_skips_updates_but_no_close(autojump_clock: MockClock) -> None:
    exchange = simulated()
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as connection:
        await events_for(connection, 10)
        autojump_clock.jump(200)
        found = await events_for(connection, 1)
    assert [event["k"]["t"] for event in found if event["k"]["x"]] == [START + n * MINUTE for n in range(3)]
    assert len(found) <= 5


async def test_a_market_of_files_ends_in_silence(autojump_clock: MockClock) -> None:
    exchange = simulated(symbols=(), klines=archive("BTCUSDT", "1m", "2024-06-01"), start=START - 86_400_000 - 90_000)
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/stream?streams={BTC}") as connection:
        found = await events_for(connection, 600)
        last = found[-1]["data"]
        assert last["k"]["x"]
        assert last["E"] == START - 86_400_000 + 4
        async with connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as later:
            assert await events_for(later, 600) == []


async def test_a_stream_that_ends_and_begins_again_goes_on(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange:
        for _ in range(3):
            async with connect_in_memory(exchange, f"ws://binance/ws/{BTC}") as connection:
                found = await events_for(connection, 65)
            assert sum(event["k"]["x"] for event in found if event["E"] > START + 1000) == 1
            assert exchange.state()["streams"] == {}
