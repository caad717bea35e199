from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.simulator.faults import Refuse
from candlesync.simulator.memory import connect_in_memory
from tests.simulator.support import MINUTE, START, events, rest_of, running, simulated


async def test_faults_can_be_added_listed_and_cleared(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        one = await client.post("/control/faults", content=b'{"kind":"rest_down","for":60,"status":502}')
        assert one.status_code == 201
        assert (await client.get("/api/v3/ping")).status_code == 502
        many = await client.post(
            "/control/faults", json=[{"kind": "silent", "stream": "btcusdt@kline_1m"}, {"kind": "drop", "at": 99}]
        )
        assert [fault["kind"] for fault in many.json()] == ["rest_down", "silent", "drop"]
        assert (await client.get("/control/faults")).json() == many.json()
        assert many.json()[0]["for"] == 60
        assert (await client.delete("/control/faults")).json() == []
        assert (await client.get("/api/v3/ping")).status_code == 200
        await trio.sleep(100)
        assert (await client.get("/control/faults")).json() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b'{"kind":"no_such"}',
        b'{"kind":"drop","clos_frame":true}',
        b'{"kind":"drop","at":-1}',
        b'{"kind":"missing"}',
        b'[{"kind":"late","which":"all"}]',
    ],
)
async def test_what_is_no_fault_is_refused(body: bytes) -> None:
    exchange = simulated()
    async with rest_of(exchange) as client:
        response = await client.post("/control/faults", content=body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert exchange.faults() == []


async def test_the_state(autojump_clock: MockClock) -> None:
    exchange = simulated(minute_seconds=0.5, faults=[Refuse(at=100)])
    async with running(exchange), rest_of(exchange) as client:
        async with connect_in_memory(exchange, "ws://binance/stream?streams=ethusdt@kline_1m/ethusdt@kline_1h") as ws:
            frames = len(await events(ws, 5))
            await client.get("/api/v3/time")
            state = (await client.get("/control/state")).json()
        now = exchange.now()
        assert START < state.pop("now") <= now
        assert state.pop("frames") >= frames
        assert state == {
            "start": START,
            "minute_seconds": 0.5,
            "connections": {
                "open": 1,
                "ever": 1,
                "refused": 0,
                "by_symbol": {"ETHUSDT": {"open": 1, "ever": 1}},
            },
            "streams": {"ethusdt@kline_1m": 1, "ethusdt@kline_1h": 1},
            "subscribes": 0,
            "unsubscribes": 0,
            "rest": {"/api/v3/time": {"200": 1}},
            "weight": {"used": 1, "limit": 6000, "banned": False},
            "faults": [
                {
                    "kind": "refuse",
                    "at": 100.0,
                    "for": None,
                    "clock": "trio",
                    "symbol": None,
                    "status": 503,
                    "hang": False,
                }
            ],
        }


async def test_who_asked_for_a_symbol_and_when(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        began = trio.current_time()
        # Nobody reads what the two are sent: it has to fit.
        url, room = "ws://binance/ws", 100
        async with connect_in_memory(
            exchange, f"{url}/btcusdt@kline_1m/btcusdt@kline_1h", message_queue_size=room
        ) as first:
            await events(first, 1)
            await trio.sleep(7)
            async with connect_in_memory(exchange, url, message_queue_size=room) as second:
                names = '"btcusdt@kline_1m","ethusdt@kline_1m","nosuch@kline_1m"'
                for method in ("SUBSCRIBE", "UNSUBSCRIBE"):
                    await second.send_message(f'{{"method":"{method}","params":[{names}],"id":1}}')
                    await trio.sleep(7)
        await trio.sleep(7)
        said = (await client.get("/control/connections")).json()
    assert said["now"] == trio.current_time()
    assert [change[1:] for change in said["changes"]] == [
        ["BTCUSDT", 1],
        ["BTCUSDT", 2],
        ["ETHUSDT", 1],
        ["BTCUSDT", 1],
        ["ETHUSDT", 0],
        ["BTCUSDT", 0],
    ]
    times = [change[0] for change in said["changes"]]
    assert times == sorted(times)
    assert began == times[0]
    assert times[3] - times[1] == 7


async def test_the_truth(autojump_clock: MockClock) -> None:
    exchange = simulated(weight_limit=1)
    async with running(exchange), rest_of(exchange) as client:
        await trio.sleep(150)
        query: dict[str, Any] = {
            "symbol": "BTCUSDT",
            "interval": "1m",
            "startTime": START - MINUTE,
            "endTime": START + 9 * MINUTE,
        }
        rows = (await client.get("/control/truth", params=query)).json()
        assert [row[0] for row in rows] == [START - MINUTE, START, START + MINUTE], "closed candles only"
        assert [tuple(row) for row in rows] == exchange.truth("BTCUSDT", "1m", START - MINUTE, START + 9 * MINUTE)
        everything = (await client.get("/control/truth", params={"symbol": "YOUNGUSDT"})).json()
        assert len(everything) == 702
        months = (await client.get("/control/truth", params={"symbol": "BTCUSDT", "interval": "1M"})).json()
        assert len(months) == 17
        for wrong in ({}, {"symbol": "NOSUCH"}, {"symbol": "BTCUSDT", "interval": "2m"}):
            assert (await client.get("/control/truth", params=wrong)).status_code == 400
