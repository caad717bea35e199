"""What ``/metrics`` says of the doors, after real requests through them."""

from __future__ import annotations

import json
from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.binance.stream import StreamSettings
from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.interval import MINUTE
from candlesync.simulator.faults import Drop, Refuse, RestBanned, RestDown
from candlesync.simulator.settings import DEFAULT_START
from tests.asgi import open_socket
from tests.builders import candle, minute
from tests.doors.binance.world import Door, open_door
from tests.metrics import Samples, by_label, read_samples
from tests.web.builders import Web, commit
from tests.whole.world import World

GOOD = "symbol=BTCUSDT&interval=1m"
STREAM = "/binance/ws/btcusdt@kline_1m"
STREAMS = "/binance/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m"
BEFORE = DEFAULT_START - 5_000 * MINUTE


async def samples(world: World) -> Samples:
    answer = await world.get("/metrics")
    assert answer.status_code == 200
    return read_samples((await answer.get_data()).decode())


async def ask_at_once(door: Door, path: str, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(partial(door.get, path))


async def test_what_is_passed_on(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        found = await samples(door.world)
        assert {labels[0] for name, labels in found if name == "candlesync_passed_on_total"} == {"2xx", "4xx", "none"}
        for _ in range(3):
            assert (await door.get("/api/v3/time")).status_code == 200
        first = await door.get("/api/v3/ticker/24hr?symbol=BTCUSDT")
        assert (await door.get("/api/v3/ticker/24hr?symbol=BTCUSDT")).content == first.content
        found = await samples(door.world)
        assert found["candlesync_passed_on_answers_held", ()] == 1
        assert found["candlesync_passed_on_held_bytes", ()] == len(first.content)
        assert (await door.get("/api/v3/depth?symbol=NOSUCH")).status_code == 400
        door.world.exchange.add_fault(RestDown(seconds=3, status=None, delay=1.0))
        await ask_at_once(door, "/api/v3/ticker/price?symbol=BTCUSDT", 3)
        await trio.sleep(5)
        door.world.exchange.add_fault(RestDown(seconds=30, status=503))
        assert (await door.get("/api/v3/avgPrice?symbol=BTCUSDT")).status_code == 503
        found = await samples(door.world)
        assert by_label(found, "candlesync_passed_on_total") == {"2xx": 5, "4xx": 1, "none": 1}
        assert found["candlesync_passed_on_kept_total", ()] == 1
        assert found["candlesync_passed_on_shared_total", ()] == 2
        assert by_label(found, "candlesync_passed_on_refused_total") == {}


async def test_what_is_not_passed_on(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        statuses = []
        for _ in range(30):
            await trio.sleep(1.1)  # for so long an answer is good
            statuses.append((await door.get("/api/v3/ticker/24hr")).status_code)
        assert set(statuses) == {200, 429}
        found = await samples(door.world)
        assert by_label(found, "candlesync_passed_on_total") == {"2xx": statuses.count(200)}
        refused = {"address": statuses.count(429)}
        assert by_label(found, "candlesync_passed_on_refused_total") == refused
        await trio.sleep(120)
        door.world.exchange.add_fault(RestBanned(retry_after=300, seconds=300))
        for _ in range(2):
            assert (await door.get("/api/v3/ticker/24hr")).status_code == 429
        found = await samples(door.world)
        assert by_label(found, "candlesync_passed_on_refused_total") == {**refused, "weight": 2}


async def test_pages_of_older_history_however_they_are_asked_for(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        await door.world.until_live()
        assert (await samples(door.world))["candlesync_archive_read_total", ()] == 0
        door.world.exchange.add_fault(RestDown(seconds=3, status=None, delay=1.0))
        await ask_at_once(door, f"/api/v3/klines?{GOOD}&endTime={BEFORE - 1}&limit=10", 3)
        await trio.sleep(5)
        asked = len(door.upstream)
        for path in (
            f"/candles/BTCUSDT/1m?before={BEFORE // 1000}&limit=10",
            f"/udf/history?symbol=BTCUSDT&resolution=1&to={BEFORE // 1000}&countback=10",
        ):
            assert (await door.world.get(path)).status_code == 200
        assert len(door.upstream) == asked
        found = await samples(door.world)
        assert found["candlesync_archive_read_total", ()] == 1
        assert found["candlesync_archive_shared_total", ()] == 2
        assert found["candlesync_archive_kept_total", ()] == 2
        assert found["candlesync_archive_pages", ()] == 1
        door.world.exchange.add_fault(RestDown(seconds=60, status=503))
        assert (await door.get(f"/api/v3/klines?{GOOD}&endTime=1600000000000")).status_code == 503
        await trio.sleep(60)
        door.world.exchange.add_fault(RestBanned(retry_after=300, seconds=300))
        for status in (429, 429):
            assert (await door.get(f"/api/v3/klines?{GOOD}&endTime=1600000000000")).status_code == status
        found = await samples(door.world)
        assert found["candlesync_archive_failures_total", ()] == 1
        assert found["candlesync_archive_refused_total", ()] == 2
        assert found["candlesync_archive_read_total", ()] == 1


async def test_streams_and_those_that_departed(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        world = door.world
        async with open_socket(world.service.app, STREAMS) as socket, open_socket(world.service.app, "/ws/candles"):
            assert json.loads(await socket.receive())["data"]["s"] in {"BTCUSDT", "ETHUSDT"}
            found = await samples(world)
            assert found["candlesync_sockets", ()] == 2
            assert found["candlesync_binance_sockets", ()] == 1
            assert found["candlesync_binance_streams", ()] == 2
            assert found["candlesync_binance_departures_total", ()] == 0
        found = await samples(world)
        assert found["candlesync_binance_sockets", ()] == 0
        assert found["candlesync_binance_departures_total", ()] == 2
        assert found["candlesync_binance_departures_held", ()] == 2
        async with open_socket(world.service.app, STREAMS) as socket:
            await socket.receive()
            found = await samples(world)
            assert found["candlesync_binance_departures_taken_total", ()] == 2
            assert found["candlesync_binance_departures_held", ()] == 0


async def test_what_the_request_weight_was_spent_for(autojump_clock: MockClock) -> None:
    """The first minute: what Binance has counted is the sum, and nothing of it is told twice."""
    async with open_door(Settings(symbols=("BTCUSDT",))) as door:
        await door.world.until_live()
        first = by_label(await samples(door.world), "candlesync_rest_weight_spent_total")
        assert first.keys() - {"listing", "audit"} == {"series"}
        for path in ("/api/v3/time", "/api/v3/depth?symbol=BTCUSDT&limit=1000", "/api/v3/ticker/24hr?symbol=BTCUSDT"):
            assert (await door.get(path)).status_code == 200
        assert (await door.world.get("/udf/time")).status_code == 200
        assert (await door.world.get("/symbols")).status_code == 200
        before = DEFAULT_START // 1000 - 400_000
        assert (await door.world.get(f"/candles/BTCUSDT/1m?before={before}&limit=10")).status_code == 200
        found = await samples(door.world)
        spent = by_label(found, "candlesync_rest_weight_spent_total")
        assert sum(spent.values()) == found["candlesync_rest_weight_used", ()]
        # rest-api.md: time 1 (twice), depth of 1000 50, the ticker of one symbol 2; exchangeInfo 20; klines 2.
        assert spent.pop("audit", 0) in {0, 2}
        assert spent == {"series": first["series"], "passed_on": 1 + 50 + 2 + 1, "listing": 20, "older": 2}
        await trio.sleep(300)
        found = await samples(door.world)
        questions = found["candlesync_audit_questions_total", ()]
        assert questions > 0
        spent = by_label(found, "candlesync_rest_weight_spent_total")
        assert spent["audit"] == 2 * questions
        assert spent["series"] == first["series"]
        requests = [request for request in door.upstream if request.url.path == "/api/v3/klines"]
        assert spent["series"] + spent["audit"] + spent["older"] == 2 * len(requests)


async def test_what_goes_to_binance_again_or_is_on_its_way(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT", "ETHUSDT"), audit=AuditSettings(share=0))
    async with open_door(settings) as door:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await door.world.until_live(symbol)
        found = await samples(door.world)
        assert found["candlesync_info", ("0.1.0", "spot")] == 1
        assert found["candlesync_stream_attempts_used", ()] == found["candlesync_stream_connects_total", ()] == 2
        assert found["candlesync_stream_attempts_limit", ()] == 250
        assert found["candlesync_rest_retries_total", ()] == 0
        assert found["candlesync_rest_weight_in_flight", ()] == 0
        door.world.exchange.add_fault(RestDown(seconds=0.1, status=503))
        asked = len(door.upstream)
        assert (await door.get("/api/v3/depth?symbol=BTCUSDT&limit=1000")).status_code == 200
        assert (await samples(door.world))["candlesync_rest_retries_total", ()] == len(door.upstream) - asked - 1 > 0
        door.world.exchange.add_fault(RestDown(seconds=3, status=None, delay=2.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.get, "/api/v3/depth?symbol=ETHUSDT&limit=1000")
            await trio.sleep(1)
            assert (await samples(door.world))["candlesync_rest_weight_in_flight", ()] == 50
        door.world.exchange.add_fault(Refuse(status=429, seconds=5))
        door.world.exchange.add_fault(Drop())
        await trio.sleep(10)
        found = await samples(door.world)
        assert 100 < found["candlesync_stream_held_seconds", ()] < StreamSettings().limited_pause
        assert found["candlesync_stream_attempts_waiting", ()] == 2


async def test_clients_of_the_streams_that_this_server_ended_are_among_the_evictions() -> None:
    web = Web(history=10)
    topic = web.topic()
    async with web.socket(STREAM) as hasty:
        for _ in range(11):
            await hasty.send({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert await hasty.until_closed() == (1008, "Too many requests")
    async with web.socket(STREAM, capacity=0) as slow:
        for number in range(10, 40):
            await wait_all_tasks_blocked()
            commit(topic, candle(minute(number)))
        await slow.receive()
        assert (await slow.until_closed())[0] == 4410
    found = read_samples((await web.get("/metrics")).body.decode())
    assert by_label(found, "candlesync_evictions_total") == {"too_many": 1, "too_old": 1}
