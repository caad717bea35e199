"""The door on the venues other than spot: their paths, parameters, limits and errors, over the whole service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from trio.testing import MockClock

from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.venue import SPOT_US, USDM, Venue
from candlesync.binance.weight import WeightSettings
from candlesync.config import Settings
from candlesync.core.interval import MINUTE
from candlesync.simulator.faults import Drop
from candlesync.simulator.settings import DEFAULT_START, SimulatorSettings
from tests.asgi import open_socket
from tests.builders import candle, forming, minute
from tests.doors.binance.world import Door, open_door
from tests.web.builders import Web, commit

GOOD = "symbol=BTCUSDT&interval=1m"
KLINES = "/fapi/v1/klines"
STREAM = "btcusdt@kline_1m"


def settings_of(venue: Venue) -> Settings:
    return Settings(
        rest=RestSettings(venue=venue),
        stream=StreamSettings(venue=venue),
        weight=WeightSettings(limit=venue.weight_limit),
    )


@asynccontextmanager
async def open_futures() -> AsyncIterator[Door]:
    simulated = SimulatorSettings(venue="usdm", minute_seconds=60.0)
    async with open_door(settings_of(USDM), simulated) as door:
        yield door


WRONG = [
    # "Kline/Candlestick Data": symbol and interval are mandatory; no timeZone
    (KLINES, "", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    (KLINES, "symbol=BTCUSDT", -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."),
    (KLINES, f"{GOOD}&timeZone=0", -1104, "Not all sent parameters were read; read '2' parameter(s) but was sent '3'."),
    # recorded: GET /fapi/v1/klines?limit=1501
    (KLINES, f"{GOOD}&limit=1501", -1130, "Data sent for parameter 'limit' is not valid."),
    (KLINES, f"{GOOD}&limit=0", -1130, "Data sent for parameter 'limit' is not valid."),
    # the intervals that there are: no 1s
    (KLINES, "symbol=BTCUSDT&interval=1s", -1120, "Invalid interval."),
    (KLINES, "symbol=BTCUSDT&interval=2m", -1120, "Invalid interval."),
    # recorded: GET /fapi/v1/ticker/24hr?symbol=BTCUSD_201225
    (KLINES, "symbol=BTCUSD_201225&interval=1m", -1121, "Invalid symbol."),
    ("/fapi/v1/ticker/24hr", "symbol=BTCUSD_201225", -1121, "Invalid symbol."),
    # "Order Book", "Open Interest": symbol; the tickers take one symbol or none
    ("/fapi/v1/depth", "", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    ("/fapi/v1/openInterest", "", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
    (
        "/fapi/v1/ticker/price",
        "symbols=%5B%22BTCUSDT%22%5D",
        -1104,
        "Not all sent parameters were read; read '0' parameter(s) but was sent '1'.",
    ),
    (
        "/futures/data/openInterestHist",
        "symbol=BTCUSDT",
        -1102,
        "Mandatory parameter 'period' was not sent, was empty/null, or malformed.",
    ),
]


async def test_wrong_questions_about_futures(autojump_clock: MockClock) -> None:
    async with open_futures() as door:
        for path, query, code, message in WRONG:
            response = await door.get(f"{path}?{query}")
            assert (response.status_code, response.json()) == (400, {"code": code, "msg": message}), (path, query)


async def test_a_page_of_futures_has_1500_rows_whatever_the_store_holds(autojump_clock: MockClock) -> None:
    async with open_futures() as door:
        rows = await door.rows(f"{GOOD}&limit=1500", KLINES)
        assert [row[0] for row in rows] == [DEFAULT_START - number * MINUTE for number in range(1499, -1, -1)]
        assert await door.rows(GOOD, KLINES) == rows[-500:]
        start = rows[3][0]
        assert (await door.rows(f"{GOOD}&startTime={start}&limit=1400", KLINES)) == rows[3:1403]
        truth = door.world.exchange.truth("BTCUSDT", "1m", rows[0][0], door.world.exchange.now())
        assert rows[:-1] == [list(row) for row in truth[: len(rows) - 1]]
        assert all(one[0] + MINUTE == other[0] for one, other in pairwise(rows))
        used = int((await door.get("/fapi/v1/ping")).headers["X-MBX-USED-WEIGHT-1M"])
        assert 0 < used < 200
        # Not of the spot API: times in microseconds are times in the far future.
        assert await door.rows(f"{GOOD}&startTime={start}000", KLINES) == []
        unit = await door.get(f"{KLINES}?{GOOD}&limit=1", X_MBX_TIME_UNIT="MICROSECOND")
        assert unit.json()[0][0] == rows[-1][0]


async def test_the_questions_that_clients_of_futures_ask_at_start(autojump_clock: MockClock) -> None:
    async with open_futures() as door:
        assert (await door.get("/fapi/v1/ping")).json() == {}
        assert list((await door.get("/fapi/v1/time")).json()) == ["serverTime"]
        info = (await door.get("/fapi/v1/exchangeInfo")).json()
        assert info["symbols"][0]["contractType"] == "PERPETUAL"
        for target in (
            "/fapi/v1/ticker/price?symbol=BTCUSDT",
            "/fapi/v1/ticker/24hr",
            "/fapi/v1/trades?symbol=BTCUSDT",
        ):
            response = await door.get(target)
            assert response.status_code == 200
            assert door.upstream[-1].url.raw_path.decode() == target
        # The simulator has no such path, so nothing is there.
        missing = await door.get("/fapi/v1/premiumIndex?symbol=BTCUSDT")
        assert (missing.status_code, missing.json()["code"]) == (404, -1020)
        asked = len(door.upstream)
        for target in ("/fapi/v1/order?symbol=BTCUSDT", "/fapi/v3/account", "/fapi/v1/historicalTrades?symbol=BTCUSDT"):
            refused = await door.get(target)
            assert (refused.status_code, refused.json()["code"]) == (403, -1002), target
        for target in (f"/api/v3/klines?{GOOD}", "/fapi/v1/uiKlines", "/dapi/v1/klines"):
            refused = await door.get(target)
            assert (refused.status_code, refused.json()["code"]) == (404, -1020), target
        assert len(door.upstream) == asked


async def test_candles_of_futures_go_on_over_a_break(autojump_clock: MockClock) -> None:
    async with open_futures() as door:
        await door.rows(GOOD, KLINES)
        await door.world.until_live()
        door.world.exchange.add_fault(Drop())
        await door.world.until_live()
        rows = await door.rows(f"{GOOD}&limit=3", KLINES)
        assert [row[0] for row in rows] == [rows[-1][0] - 2 * MINUTE, rows[-1][0] - MINUTE, rows[-1][0]]


@pytest.mark.parametrize(
    "path",
    [
        f"/binance/market/ws/{STREAM}",
        f"/binance/ws/{STREAM}",
        f"/binance/market/stream?streams={STREAM}",
        f"/binance/stream?streams={STREAM}",
    ],
)
async def test_streams_of_futures_come_where_clients_old_and_new_look_for_them(path: str) -> None:
    web = Web(venue=USDM)
    topic = web.topic()
    async with web.socket(path) as socket:
        await socket.rest()
        commit(topic, candle(minute(10)), forming(minute(11)))
        closed, open_ = await socket.take(2)
        assert ("stream" in closed) == ("stream" in path)
        assert [event.get("data", event)["k"]["x"] for event in (closed, open_)] == [True, False]


async def test_streams_of_futures_have_no_microseconds() -> None:
    async with Web(venue=USDM).socket(f"/binance/ws/{STREAM}?timeUnit=MICROSECOND") as socket:
        refusal = await socket.until_refused()
    assert (refusal.status, refusal.json["code"]) == (400, -1130)


async def test_a_client_of_futures_may_send_ten_messages_a_second(autojump_clock: MockClock) -> None:
    async with Web(venue=USDM).socket("/binance/market/ws") as socket:
        for number in range(20):
            await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": number})
        assert [answer["id"] for answer in await socket.take(20)] == list(range(20))
        await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": 20})
        assert (await socket.until_closed())[0] == 1008


async def test_other_streams_of_futures_are_not_found() -> None:
    for venue, path in ((USDM, f"/binance/public/ws/{STREAM}"), (SPOT_US, f"/binance/market/ws/{STREAM}")):
        async with Web(venue=venue).socket(path) as socket:
            refusal = await socket.until_refused()
        assert (refusal.status, refusal.json["code"]) == (404, -1020)


async def test_a_stream_of_an_interval_that_the_venue_has_not(autojump_clock: MockClock) -> None:
    async with open_futures() as door:
        async with open_socket(door.world.service.app, "/binance/market/ws") as socket:
            await socket.send('{"method":"SUBSCRIBE","params":["btcusdt@kline_1s"],"id":1}')
            answer = await socket.receive()
        assert json.loads(answer) == {"error": {"code": -1120, "msg": "Invalid interval."}, "id": 1}
        udf = await door.world.get("/udf/history?symbol=BTCUSDT&resolution=1S&to=1717372800")
        assert (udf.status_code, (await udf.get_json())["s"]) == (400, "error")
        config = await (await door.world.get("/udf/config")).get_json()
        assert config["supported_resolutions"][0] == "1"


async def test_binance_us_has_spot_paths_with_weights_of_its_own() -> None:
    web = Web(venue=SPOT_US)
    web.topic()
    rows = await web.get(f"/binance/api/v3/klines?{GOOD}&limit=5000")
    assert len(rows.json) == 10
    for path in ("uiKlines", "ticker/tradingDay", "historicalBlockTrades"):
        assert (await web.get(f"/binance/api/v3/{path}?symbol=BTCUSDT")).json["code"] == -1020
    keyed = await web.get("/binance/api/v3/historicalTrades?symbol=BTCUSDT")
    assert (keyed.status, keyed.json["code"]) == (403, -1002)
    assert (await web.get(f"/binance/api/v3/klines?{GOOD}&timeZone=0")).json["code"] == -1104
    assert (await web.get("/binance/api/v3/ticker/price?symbol=BTCUSDT")).status == 200
