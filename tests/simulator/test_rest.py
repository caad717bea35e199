from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from candlesync.core.interval import Interval
from candlesync.simulator.bars import Row
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.settings import KlineFile
from tests.simulator.support import MINUTE, START, archive, klines, rest_of, running, shared, simulated

KLINES = "/api/v3/klines"


async def body(query: str, *, path: str = KLINES, status: int = 400) -> dict[str, Any]:
    async with rest_of(simulated()) as client:
        response = await client.get(f"{path}?{query}")
    assert response.status_code == status
    found: dict[str, Any] = response.json()
    return found


def recorded_errors() -> dict[str, Any]:
    entries = json.loads(shared("rest/binance_error_bodies.json").read_text())
    return {entry["request"]: entry["body"] for entry in entries if "body" in entry}


@pytest.mark.parametrize(
    ("query", "recorded"),
    [
        ("symbol=BTCUSDT&interval=1mo&limit=1", "GET /api/v3/klines?symbol=BTCUSDT&interval=1mo&limit=1"),
        ("symbol=NOSUCH&interval=1m", "GET /fapi/v1/ticker/24hr?symbol=BTCUSD_201225 (and spot endpoints)"),
        ("symbol=BTCUSDT&interval=1m&limit=0", "GET /api/v3/klines?...&limit=0"),
        ("symbol=BNBBTC", "GET /api/v1/klines?symbol=BNBBTC"),
        ("fromId=1", "GET /api/v1/klines?fromId=1"),
        ("fromId=1&symbol=BNBBTC&interval=1h", "GET /api/v1/klines?fromId=1&symbol=BNBBTC&interval=1h"),
        ("symbol=BNBBTC&symbol=BNBBTC", "GET /api/v1/ticker/24hr?symbol=BNBBTC&symbol=BNBBTC"),
        ("symbol=BTCUSDT&interval=1m&limit=-1", "GET /api/v1/aggTrades?symbol=BNBBTC&limit=-1"),
        ("symbol=BTCUSDT&interval=1m&startTime=abc", "GET /api/v3/klines with a non-numeric startTime"),
        (
            "symbol=1000CAT%2FUSDT&interval=4h&limit=1000",
            "GET /api/v3/klines?symbol=1000CAT%2FUSDT&interval=4h&limit=1000",
        ),
    ],
)
async def test_errors_are_those_that_binance_was_seen_to_answer(query: str, recorded: str) -> None:
    assert await body(query) == recorded_errors()[recorded]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbol=btcusdt&interval=1m", -1100),
        ("symbol=BTCUSDT&interval=1M&limit=", -1105),
        ("symbol=BTCUSDT&interval=1m&startTime=99999999999999999999", -1108),
        ("symbol=BTCUSDT&interval=1m&startTime=999999999999999999999", -1100),
        ("symbol=BTCUSDT&interval=1m&timeZone=15", -1130),
        ("symbol=BTCUSDT&interval=1m&timeZone=x", -1130),
    ],
)
async def test_errors_that_are_only_documented(query: str, code: int) -> None:
    assert (await body(query))["code"] == code


async def test_pages(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        await trio.sleep(90)
        assert len(await klines(client)) == 500
        assert len(await klines(client, limit=1000)) == 1000
        assert len(await klines(client, limit=5000)) == 1000
        newest = await klines(client, limit=3)
        assert [row.open_time for row in newest] == [START - MINUTE, START, START + MINUTE]
        assert await klines(client, startTime=START - MINUTE, limit=1) == newest[:1]
        assert await klines(client, endTime=START, limit=2) == (await klines(client, limit=4))[1:3]
        assert await klines(client, startTime=START - MINUTE, endTime=START) == newest[:2]
        assert await klines(client, startTime=START + 2 * MINUTE) == []
        assert len(await klines(client, "YOUNGUSDT", limit=1000)) == 702


async def test_days_of_another_zone_begin_at_its_midnight(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        await trio.sleep(3630)
        for zone, shift in (("8", -8), ("-5", 5), ("+05:00", -5)):
            days = await klines(client, interval="1d", limit=4, timeZone=zone)
            assert all((day.open_time - shift * 60 * MINUTE) % (24 * 60 * MINUTE) == 0 for day in days)
            assert days[-1].open_time <= exchange.now() <= days[-1].close_time
            hours = await klines(client, interval="1h", startTime=days[1].open_time, endTime=days[1].close_time)
            assert len(hours) == 24
            assert days[1].trades == sum(hour.trades for hour in hours)
            assert (days[1].open, days[1].close) == (hours[0].open, hours[-1].close)
            assert days[1].close_time == days[2].open_time - 1
            later = await klines(client, interval="1d", startTime=days[1].open_time, limit=2, timeZone=zone)
            assert later == days[1:3]
        assert await klines(client, limit=3, timeZone="8") == await klines(client, limit=3)
        months = await klines(client, interval="1M", limit=2, timeZone="8")
        assert [month.open_time for month in months] == [1_714_492_800_000, 1_717_171_200_000]


async def test_the_newest_row_grows_until_it_is_final(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, rest_of(exchange) as client:
        await trio.sleep(10)
        early = (await klines(client, limit=1))[0]
        await trio.sleep(40)
        late = (await klines(client, limit=1))[0]
        assert early.open_time == late.open_time == START
        assert early.trades < late.trades
        await trio.sleep(20)
        final = (await klines(client, limit=2))[0]
        assert final.trades > late.trades
        assert [final] == exchange.truth("BTCUSDT", "1m", START, START)


async def test_recorded_queries_are_answered_as_binance_answered_them(tmp_path: Path) -> None:
    """Among them 1000 and 468 hours, page by page, over the hole of 2020-06-28."""
    routes = {query: rows for query, rows in gunzipped("rest/klines_routes.json.gz").items() if "startTime" in query}
    hours = [(query, rows) for query, rows in routes.items() if len(rows) in (1000, 468)]
    assert len(hours) == 2
    together = [row for _, rows in hours for row in rows]
    for query, rows in routes.items():
        asked = httpx.QueryParams(query)
        path = tmp_path / "klines"
        path.write_bytes(msgspec.json.encode(together if (query, rows) in hours else rows))
        file = KlineFile(asked["symbol"], Interval(asked["interval"]), path)
        exchange = simulated(symbols=(), klines=(file,), start=max(row[6] for row in [*rows, *together]) + 1)
        async with rest_of(exchange) as client:
            assert (await client.get(f"{KLINES}?{query}")).json() == rows


def gunzipped(name: str) -> Any:
    return msgspec.json.decode(gzip.decompress(shared(name).read_bytes()))


async def test_bodies_look_like_recorded_ones() -> None:
    recorded = msgspec.json.decode(shared("rest/klines_unknown-usdt-symbol_1m_500_2024-11-16.json").read_bytes())
    exchange = simulated(symbols=(), klines=archive("BTCUSDT", "1m", "2024-06-01"))
    async with rest_of(exchange) as client:
        ours = (await client.get(KLINES, params={"symbol": "BTCUSDT", "interval": "1m"})).json()
    assert len(recorded) == len(ours) == 500
    assert [type(field) for field in recorded[0]] == [type(field) for field in ours[0]]
    assert msgspec.json.decode(msgspec.json.encode(recorded), type=list[Row])


async def test_exchange_info() -> None:
    recorded = gunzipped("rest/exchangeInfo_gct_weight6000.json.gz")
    path = "/api/v3/exchangeInfo"
    async with rest_of(simulated()) as client:
        ours = (await client.get(path)).json()
        assert ours.keys() == recorded.keys()
        assert ours["symbols"][0].keys() == recorded["symbols"][0].keys()
        assert ours["rateLimits"][0] in recorded["rateLimits"]
        names = [entry["symbol"] for entry in ours["symbols"]]
        assert names[:2] == ["BTCUSDT", "ETHUSDT"]
        assert {entry["baseAsset"] + entry["quoteAsset"] for entry in ours["symbols"]} == set(names)
        one = (await client.get(path, params={"symbol": "ETHBTC"})).json()["symbols"]
        assert [(entry["symbol"], entry["status"], entry["isSpotTradingAllowed"]) for entry in one] == [
            ("ETHBTC", "TRADING", True)
        ]
        two = (await client.get(path, params={"symbols": '["ETHBTC","BTCUSDT"]'})).json()["symbols"]
        assert [entry["symbol"] for entry in two] == ["ETHBTC", "BTCUSDT"]
        assert (await client.get(path, params={"symbolStatus": "BREAK"})).json()["symbols"] == []
        bare = (await client.get(path, params={"showPermissionSets": "false"})).json()["symbols"]
        assert bare[0]["permissionSets"] == []
    for query, code in (
        ("symbol=NOSUCH", -1121),
        ('symbols=["BTCUSDT","NOSUCH"]', -1121),
        ("symbols=BTCUSDT", -1135),
        ('symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
        ("sybmol=BTCUSDT", -1104),
    ):
        assert (await body(query, path=path))["code"] == code


async def test_time_and_ping(autojump_clock: MockClock) -> None:
    async with running(simulated(minute_seconds=0.25)) as exchange, rest_of(exchange) as client:
        assert (await client.get("/api/v3/time")).json() == {"serverTime": START}
        await trio.sleep(1)
        assert (await client.get("/api/v3/time")).json() == {"serverTime": START + 4 * MINUTE}
        assert (await client.get("/api/v3/ping")).json() == {}
        assert (await client.get("/api/v3/ping", params={"a": 1})).json()["code"] == -1104
        assert (await client.get("/api/v3/nothing")).status_code == 404


async def test_the_market_stands_still_until_it_is_run() -> None:
    exchange = simulated()
    async with rest_of(exchange) as client:
        assert (await klines(client, limit=1))[0].open_time == START
    assert exchange.now() == START
    with pytest.raises(RuntimeError, match="stands still"):
        exchange.clock.when(START)


async def test_weights_are_told(autojump_clock: MockClock) -> None:
    exchange = Exchange(simulated().settings)
    async with rest_of(exchange) as client:
        used = []
        for path in ("/api/v3/ping", "/api/v3/exchangeInfo", f"{KLINES}?symbol=BTCUSDT&interval=1m", KLINES):
            response = await client.get(path)
            assert response.headers["X-MBX-USED-WEIGHT"] == response.headers["X-MBX-USED-WEIGHT-1M"]
            used.append(int(response.headers["X-MBX-USED-WEIGHT-1M"]))
        assert used == [1, 21, 23, 25]
        await trio.sleep(60)
        assert (await client.get("/api/v3/ping")).headers["X-MBX-USED-WEIGHT-1M"] == "1"


async def test_above_the_limit_comes_429_and_for_who_goes_on_418(autojump_clock: MockClock) -> None:
    exchange = simulated(weight_limit=6, weight_patience=3, ban_seconds=120)
    async with rest_of(exchange) as client:

        async def ask() -> httpx.Response:
            return await client.get(KLINES, params={"symbol": "BTCUSDT", "interval": "1m", "limit": 1})

        await trio.sleep(15)
        assert [(await ask()).status_code for _ in range(3)] == [200, 200, 200]
        limited = await ask()
        assert limited.status_code == 429
        assert limited.headers["Retry-After"] == "45"
        assert limited.json()["code"] == -1003
        await trio.sleep(45)
        assert (await ask()).status_code == 200
        statuses = [(await ask()).status_code for _ in range(7)]
        assert statuses == [200, 200, 429, 429, 429, 418, 418]
        banned = await ask()
        assert banned.headers["Retry-After"] == "120"
        assert "IP banned until" in banned.json()["msg"]
        await trio.sleep(119)
        assert (await ask()).status_code == 418
        await trio.sleep(1)
        assert (await ask()).status_code == 200
        assert exchange.state()["rest"] == {KLINES: {"200": 7, "429": 4, "418": 4}}
