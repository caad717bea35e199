"""Binance's REST API over the whole service: the same questions get the same answers, error for error."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.interval import MINUTE, Interval
from candlesync.simulator.faults import Drop, Missing, Refuse, RestBanned, RestDown
from candlesync.simulator.settings import DEFAULT_START, KlineFile, SimulatorSettings
from candlesync.supervisor import SupervisorSettings
from candlesync.web.access import AccessSettings, Token
from tests.builders import shared_data
from tests.doors.binance.world import REAL_TIME, open_door
from tests.scopes import http_scope

START = DEFAULT_START
GOOD = "symbol=BTCUSDT&interval=1m"
SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"
NUMBER = "^[0-9]{1,20}$"


def illegal(name: str, legal: str) -> str:
    return f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."


def mandatory(name: str) -> str:
    return f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."


def unread(read: int, sent: int) -> str:
    return f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'."


WRONG = [
    # Sources: rest-api.md and errors.md of binance-spot-api-docs, "recorded" is
    # ../shared/data/rest/binance_error_bodies.json; each group names its own.
    # rest-api.md: symbol and interval are mandatory; errors.md: -1102
    ("klines", "", -1102, mandatory("symbol")),
    ("klines", "symbol=BTCUSDT", -1102, mandatory("interval")),
    ("klines", "interval=1m", -1102, mandatory("symbol")),
    ("uiKlines", "symbol=BTCUSDT", -1102, mandatory("interval")),
    # the mandatory ones come before an unknown one, which is counted (recorded)
    ("klines", "fromId=1", -1102, mandatory("symbol")),
    ("klines", f"fromId=1&{GOOD}", -1104, unread(2, 3)),
    ("klines", f"{GOOD}&signature=x&timestamp=1&recvWindow=5", -1104, unread(2, 5)),
    ("klines", f"{GOOD}&star_time=1&end_time=2", -1104, unread(2, 4)),
    ("klines", f"{GOOD}&LIMIT=1", -1104, unread(2, 3)),
    # a repeated one comes before everything else (recorded)
    ("klines", "symbol=BTCUSDT&symbol=BTCUSDT", -1101, "Duplicate values for a parameter detected."),
    ("klines", f"{GOOD}&limit=1&limit=1", -1101, "Duplicate values for a parameter detected."),
    ("uiKlines", f"{GOOD}&interval=1m", -1101, "Duplicate values for a parameter detected."),
    # empty ones (errors.md: -1105; recorded of interval and startTime)
    ("klines", "symbol=BTCUSDT&interval=", -1105, "Parameter 'interval' was empty."),
    ("klines", "symbol=&interval=1m", -1105, "Parameter 'symbol' was empty."),
    ("klines", f"{GOOD}&startTime=", -1105, "Parameter 'startTime' was empty."),
    ("klines", f"{GOOD}&limit", -1105, "Parameter 'limit' was empty."),
    ("klines", "symbol=btc&interval=", -1105, "Parameter 'interval' was empty."),
    # characters (errors.md: -1100; recorded of symbol, interval, startTime and limit)
    ("klines", "symbol=btcusdt&interval=1m", -1100, illegal("symbol", SYMBOL)),
    ("klines", "symbol=1000CAT%2FUSDT&interval=4h&limit=1000", -1100, illegal("symbol", SYMBOL)),
    ("klines", "symbol=BTC%20USDT&interval=1m", -1100, illegal("symbol", SYMBOL)),
    ("klines", f"symbol={'B' * 51}&interval=1m", -1100, illegal("symbol", SYMBOL)),
    ("klines", "symbol=BTC%FFUSDT&interval=1m", -1100, illegal("symbol", SYMBOL)),
    ("klines", "symbol=BTC%00&interval=1m", -1100, illegal("symbol", SYMBOL)),
    ("klines", "symbol=BTCUSDT&interval=%225m%22", -1100, illegal("interval", "^[a-zA-Z_0-9]{1,36}$")),
    ("klines", "symbol=btcusdt&interval=1-m", -1100, illegal("symbol", SYMBOL)),
    ("klines", f"{GOOD}&startTime=abc", -1100, illegal("startTime", NUMBER)),
    ("klines", f"{GOOD}&endTime=None", -1100, illegal("endTime", NUMBER)),
    ("klines", f"{GOOD}&startTime=-1", -1100, illegal("startTime", NUMBER)),
    ("klines", f"{GOOD}&startTime=1.5e12", -1100, illegal("startTime", NUMBER)),
    ("klines", f"{GOOD}&startTime={'1' * 21}", -1100, illegal("startTime", NUMBER)),
    ("klines", f"{GOOD}&startTime=%D9%A1", -1100, illegal("startTime", NUMBER)),
    ("klines", f"{GOOD}&limit=-1", -1100, illegal("limit", NUMBER)),
    ("klines", f"{GOOD}&limit=ten", -1100, illegal("limit", NUMBER)),
    ("klines", f"{GOOD}&limit=1&endTime=2021-01-01", -1100, illegal("endTime", NUMBER)),
    # sizes and senses (errors.md: -1108, -1130; recorded: limit=0; rest-api.md: zones from -12:00 to +14:00)
    ("klines", f"{GOOD}&startTime={'9' * 20}", -1108, "Parameter 'startTime' overflowed."),
    ("klines", f"{GOOD}&limit={'9' * 19}", -1108, "Parameter 'limit' overflowed."),
    ("klines", f"{GOOD}&limit=0", -1102, mandatory("limit")),
    ("klines", f"{GOOD}&timeZone=15", -1130, "Data sent for parameter 'timeZone' is not valid."),
    ("klines", f"{GOOD}&timeZone=-12:01", -1130, "Data sent for parameter 'timeZone' is not valid."),
    ("klines", f"{GOOD}&timeZone=UTC", -1130, "Data sent for parameter 'timeZone' is not valid."),
    ("klines", f"{GOOD}&timeZone=1:60", -1130, "Data sent for parameter 'timeZone' is not valid."),
    # what there is not (recorded)
    ("klines", "symbol=NOSUCH&interval=1m", -1121, "Invalid symbol."),
    ("klines", "symbol=BTC-USDT&interval=1m", -1121, "Invalid symbol."),
    ("klines", "symbol=BTCUSDT&interval=1mo&limit=1", -1120, "Invalid interval."),
    ("klines", "symbol=BTCUSDT&interval=1H", -1120, "Invalid interval."),
    ("klines", "symbol=BTCUSDT&interval=60", -1120, "Invalid interval."),
    ("klines", "symbol=NOSUCH&interval=1x", -1121, "Invalid symbol."),
    ("uiKlines", "symbol=BTCUSDT&interval=2m", -1120, "Invalid interval."),
    # what is passed on is checked as far as the table goes, and the rest is Binance's (rest-api.md: the parameters of
    # each endpoint, and that symbol and symbols exclude each other; recorded of aggTrades and ticker/24hr)
    ("ping", "x=1", -1104, unread(0, 1)),
    ("time", "symbol=BTCUSDT", -1104, unread(0, 1)),
    ("exchangeInfo", "symbol=btcusdt", -1100, illegal("symbol", SYMBOL)),
    ("exchangeInfo", "symbol=NOSUCH", -1121, "Invalid symbol."),
    (
        "exchangeInfo",
        "symbol=BTCUSDT&symbols=%5B%22BTCUSDT%22%5D",
        -1128,
        "Combination of optional parameters invalid.",
    ),
    ("depth", "", -1102, mandatory("symbol")),
    ("depth", "symbol=BTCUSDT&limit=x", -1100, illegal("limit", NUMBER)),
    ("depth", "symbol=NOSUCH", -1121, "Invalid symbol."),
    ("trades", "symbol=BTCUSDT&fromId=1", -1104, unread(1, 2)),
    ("aggTrades", "symbol=BNBBTC&limit=-1", -1100, illegal("limit", NUMBER)),
    ("ticker/24hr", "symbol=BNBBTC&symbol=BNBBTC", -1101, "Duplicate values for a parameter detected."),
    ("ticker/24hr", "symbol=BTCUSDT&signature=x", -1104, unread(1, 2)),
    ("ticker/price", "symbols=BTCUSDT", -1100, None),
    ("ticker/price", "symbols=%5B%22BTCUSDT%22,%22NOSUCH%22%5D", -1121, "Invalid symbol."),
    (
        "ticker/price",
        "symbol=BTCUSDT&symbols=%5B%22BTCUSDT%22%5D",
        -1128,
        "Combination of optional parameters invalid.",
    ),
    # CHANGELOG of binance-spot-api-docs, 2023-07-11: a symbol that is named twice has an error of its own
    (
        "exchangeInfo",
        "symbols=%5B%22BTCUSDT%22,%22BTCUSDT%22%5D",
        -1151,
        "Symbol is present multiple times in the list.",
    ),
    (
        "ticker/price",
        "symbols=%5B%22ETHUSDT%22,%22BTCUSDT%22,%22ETHUSDT%22%5D",
        -1151,
        "Symbol is present multiple times in the list.",
    ),
    ("historicalTrades", "symbol=BTCUSDT&fromId=-1", -1100, illegal("fromId", NUMBER)),
    ("historicalBlockTrades", "symbol=BTCUSDT", -1102, mandatory("fromId")),
    ("avgPrice", "symbol=", -1105, "Parameter 'symbol' was empty."),
]


async def test_wrong_questions_are_answered_as_binance_answers_them(autojump_clock: MockClock) -> None:
    assert len(WRONG) >= 60
    async with open_door() as door:
        for path, query, code, message in WRONG:
            response = await door.get(f"/api/v3/{path}?{query}")
            assert response.status_code == 400, (path, query, response.text)
            body = response.json()
            assert list(body) == ["code", "msg"]
            assert body["code"] == code, (path, query, body)
            assert message is None or body["msg"] == message, (path, query)
            assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
        assert len(door.world.service.hub) == 0, "nothing was followed for any of them"


RECORDED = {
    f"{GOOD}o&limit=1": "GET /api/v3/klines?symbol=BTCUSDT&interval=1mo&limit=1",
    "symbol=NOSUCH&interval=1m": "GET /fapi/v1/ticker/24hr?symbol=BTCUSD_201225 (and spot endpoints)",
    f"{GOOD}&limit=0": "GET /api/v3/klines?...&limit=0",
    "symbol=BNBBTC": "GET /api/v1/klines?symbol=BNBBTC",
    "fromId=1": "GET /api/v1/klines?fromId=1",
    "fromId=1&symbol=BNBBTC&interval=1h": "GET /api/v1/klines?fromId=1&symbol=BNBBTC&interval=1h",
    "symbol=BNBBTC&symbol=BNBBTC": "GET /api/v1/ticker/24hr?symbol=BNBBTC&symbol=BNBBTC",
    f"{GOOD}&limit=-1": "GET /api/v1/aggTrades?symbol=BNBBTC&limit=-1",
    f"{GOOD}&startTime=abc": "GET /api/v3/klines with a non-numeric startTime",
    "symbol=1000CAT%2FUSDT&interval=4h&limit=1000": "GET /api/v3/klines?symbol=1000CAT%2FUSDT&interval=4h&limit=1000",
}


async def test_errors_are_those_that_binance_was_seen_to_answer(autojump_clock: MockClock) -> None:
    entries = json.loads((shared_data() / "rest/binance_error_bodies.json").read_text())
    recorded = {entry["request"]: entry.get("body") for entry in entries}
    async with open_door() as door:
        for query, request in RECORDED.items():
            response = await door.get(f"/api/v3/klines?{query}")
            assert (response.status_code, response.json()) == (400, recorded[request])


async def test_recorded_questions_are_answered_row_for_row(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Among them 1000 and 468 hours, page by page, over the hole of 2020-06-28."""
    routes = msgspec.json.decode(gzip.decompress((shared_data() / "rest/klines_routes.json.gz").read_bytes()))
    routes = {query: rows for query, rows in routes.items() if len(rows) > 1}
    hours = [rows for rows in routes.values() if len(rows) in (1000, 468)]
    assert len(hours) == 2
    together = [row for rows in hours for row in rows]
    for query, rows in routes.items():
        asked = httpx.QueryParams(query)
        path = tmp_path / "klines"
        path.write_bytes(msgspec.json.encode(together if rows in hours else rows))
        file = KlineFile(asked["symbol"], Interval(asked["interval"]), path)
        newest = (together if rows in hours else rows)[-1]
        # In the last candle's time: it is the newest, and not yet final.
        market = SimulatorSettings(symbols=(), klines=(file,), start=newest[6], minute_seconds=60.0)
        async with open_door(simulated=market) as door:
            found = await door.rows(query)
            assert [row[0] for row in found] == [row[0] for row in rows]
            assert found[:-1] == rows[:-1]
            assert found[-1] == rows[-1]


# --- which rows


async def test_the_four_kinds_of_ranges(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await trio.sleep(90)
        newest = await door.rows(f"{GOOD}&limit=1000")
        assert len(newest) == 1000
        assert newest[-1][0] == START + MINUTE, "the forming one"
        assert await door.rows(GOOD) == newest[-500:]
        assert await door.rows(f"{GOOD}&limit=5000") == newest
        assert await door.rows(f"{GOOD}&limit=3", "/api/v3/uiKlines") == newest[-3:]
        assert await door.rows(f"{GOOD}&timeZone=0&limit=3") == newest[-3:]
        assert await door.rows(f"{GOOD}&timeZone=-00:00&limit=3") == newest[-3:]
        assert await door.rows(f"{GOOD}&timeZone=8&limit=3") == newest[-3:]
        assert await door.rows(f"{GOOD}&startTime={newest[7][0]}&limit=5") == newest[7:12]
        assert await door.rows(f"{GOOD}&startTime={newest[7][0] + 1}&limit=5") == newest[8:13]
        assert await door.rows(f"{GOOD}&endTime={newest[20][0]}&limit=5") == newest[16:21]
        assert await door.rows(f"{GOOD}&endTime={newest[20][0] - 1}&limit=5") == newest[15:20]
        both = f"{GOOD}&startTime={newest[7][0]}&endTime={newest[20][0]}"
        assert await door.rows(both) == newest[7:21]
        assert await door.rows(f"{both}&limit=5") == newest[7:12]
        same = newest[9][0]
        assert await door.rows(f"{GOOD}&startTime={same}&endTime={same}") == [newest[9]]
        # recorded: a start after the end is no error of the spot API
        assert await door.rows(f"{GOOD}&startTime={newest[20][0]}&endTime={newest[7][0]}") == []
        assert await door.rows(f"{GOOD}&startTime={newest[-1][0] + 1}") == []
        assert await door.rows(f"{GOOD}&startTime=1578068400000&endTime=29999999") == []
        assert await door.rows(f"{GOOD}&endTime=1") == []
        assert await door.rows(f"{GOOD}&endTime=9999999999999&limit=2") == newest[-2:]
        assert door.passed_on == []
        assert not [request for request in door.upstream if "timeZone" in request.url.params]


async def test_microseconds_are_taken_and_given(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        newest = await door.rows(f"{GOOD}&limit=10")
        first, last = newest[2][0] * 1000, newest[5][0] * 1000
        assert await door.rows(f"{GOOD}&startTime={first}&endTime={last}") == newest[2:6]
        assert await door.rows(f"{GOOD}&startTime={first + 1}&endTime={last - 1}") == newest[3:5]
        for unit in ("MICROSECOND", "microsecond"):
            response = await door.get(f"/api/v3/klines?{GOOD}&limit=2", X_MBX_TIME_UNIT=unit)
            assert [row[0] for row in response.json()] == [row[0] * 1000 for row in newest[-2:]]
            assert [row[6] for row in response.json()] == [row[6] * 1000 + 999 for row in newest[-2:]]
        response = await door.get(f"/api/v3/klines?{GOOD}", X_MBX_TIME_UNIT="Seconds")
        assert (response.status_code, response.json()["code"]) == (400, -1194)
        await door.get("/api/v3/time", X_MBX_TIME_UNIT="MICROSECOND")
        assert door.upstream[-1].headers["X-MBX-TIME-UNIT"] == "MICROSECOND"


@pytest.mark.parametrize("interval", ["1s", "1m", "1h", "1d", "3d", "1w", "1M"])
async def test_a_series_is_read_page_by_page_as_binance_has_it(interval: str, autojump_clock: MockClock) -> None:
    symbol = "YOUNGUSDT" if interval == "1s" else "BTCUSDT"
    async with open_door() as door:
        await trio.sleep(30)
        start = START - 2_600 * 1000 if interval == "1s" else START - 2_600 * MINUTE if interval == "1m" else 0
        rows: list[list[Any]] = []
        while page := await door.rows(f"symbol={symbol}&interval={interval}&startTime={start}&limit=1000"):
            rows += page
            start = page[-1][0] + 1
        assert not [request for request in door.upstream if "uiKlines" in request.url.path]
        truth = door.world.exchange.truth(symbol, interval, rows[0][0], door.world.exchange.now())
        # The clock goes on while pages are read: what had closed before.
        closed = [row for row in rows if row[6] < START + 30_000]
        assert closed == [list(row) for row in truth if row.close_time < START + 30_000]
        assert len(rows) > {"1s": 2_600, "1m": 2_600, "1h": 11_000, "1d": 490, "3d": 160, "1w": 70, "1M": 16}[interval]
        times = [row[0] for row in rows]
        assert all(Interval(interval).next(one) == other for one, other in pairwise(times))


async def test_an_outage_is_no_row_here_and_counts_for_nothing(autojump_clock: MockClock) -> None:
    gone = tuple(START - number * MINUTE for number in (3, 4, 5, 1_500, 1_501))
    async with open_door() as door:
        door.world.exchange.add_fault(Missing(symbol="BTCUSDT", open_times=gone))
        answer = await door.world.get("/candles/BTCUSDT/1m?limit=10")
        filled = [one["time"] * 1000 for one in json.loads(await answer.get_data()) if one.get("filled")]
        assert sorted(filled) == sorted(gone[:3]), "the store holds them, marked"
        rows = await door.rows(f"{GOOD}&limit=1000")
        assert len(rows) == 1000
        assert set(gone).isdisjoint(row[0] for row in rows)
        assert [row[0] for row in rows[-4:]] == [START - number * MINUTE for number in (6, 2, 1, 0)]
        around = await door.rows(f"{GOOD}&startTime={gone[4] - MINUTE}&limit=3")
        assert [row[0] for row in around] == [START - number * MINUTE for number in (1_502, 1_499, 1_498)]


async def test_a_zone_of_another_time_is_binances_to_answer(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        target = "/api/v3/klines?symbol=BTCUSDT&interval=1d&timeZone=-5:00&startTime=1000&limit=7"
        days = (await door.get(target)).json()
        assert [(day[0] - 300 * MINUTE) % (1440 * MINUTE) for day in days] == [0] * 7
        (request,) = [one for one in door.upstream if "timeZone" in one.url.params]
        assert request.url.path == "/api/v3/klines"
        assert dict(request.url.params) == {
            "symbol": "BTCUSDT",
            "interval": "1d",
            "timeZone": "-5:00",
            "startTime": "1000",
            "limit": "7",
        }
        await door.get("/api/v3/uiKlines?symbol=%EF%BC%91%EF%BC%92&interval=1d")
        assert str(door.upstream[-1].url.params) == "interval=1d&symbol=%EF%BC%91%EF%BC%92"
        assert len(door.world.service.hub) == 0


async def test_a_series_that_cannot_be_followed_too_is_read_from_binance(autojump_clock: MockClock) -> None:
    async with open_door(Settings(supervisor=SupervisorSettings(max_symbols=1))) as door:
        await door.rows(GOOD)
        rows = await door.rows("symbol=ETHUSDT&interval=1m&limit=3")
        assert [row[0] for row in rows] == [START - number * MINUTE for number in (2, 1, 0)]
        assert len(door.world.service.hub) == 1
        assert (await door.world.get("/candles/ETHUSDT/1m")).status_code == 429
        metrics = await (await door.world.get("/metrics")).get_data(as_text=True)
        assert 'candlesync_refused_total{reason="symbols"} 2.0\n' in metrics
        assert "candlesync_symbols_limit 1.0\n" in metrics


async def test_a_store_that_is_cut_off_says_so(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        await door.world.until_live()
        assert (await door.get(f"/api/v3/klines?{GOOD}")).headers["Candlesync-State"] == "live"
        door.world.exchange.add_fault(Refuse(seconds=600))
        door.world.exchange.add_fault(Drop())
        await trio.sleep(5)
        response = await door.get(f"/api/v3/klines?{GOOD}")
        assert (response.status_code, response.headers["Candlesync-State"]) == (200, "stale")


async def test_a_long_answer_is_handed_out_in_pieces_and_may_take_its_time(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        sent: list[dict[str, Any]] = []

        async def take(message: dict[str, Any]) -> None:
            await trio.sleep(40)
            sent.append(message)

        scope = http_scope(f"/binance/api/v3/klines?{GOOD}&limit=1000")
        await cast("Any", door.world.service.app)(scope, trio.sleep_forever, take)
        pieces = [message["body"] for message in sent[1:]]
        assert len(json.loads(b"".join(pieces))) == 1000
        assert max(map(len, pieces)) <= 64 * 1024
        assert (b"content-length", str(sum(map(len, pieces))).encode()) in sent[0]["headers"]


# --- what Binance answers


async def test_the_time_is_the_exchanges_own_however_fast_it_runs(autojump_clock: MockClock) -> None:
    async with open_door(simulated=SimulatorSettings(minute_seconds=0.25)) as door:
        for _ in range(3):
            await trio.sleep(10)
            before = door.world.exchange.now()
            told = (await door.get("/api/v3/time")).json()
            assert list(told) == ["serverTime"]
            assert before <= told["serverTime"] <= door.world.exchange.now()


async def test_public_questions_are_passed_on_and_answered_as_they_are(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        assert (await door.get("/api/v3/ping")).content == b"{}"
        assert door.upstream == []
        targets = [
            "/api/v3/ticker/price?symbol=BTCUSDT",
            "/api/v3/ticker/price",
            "/api/v3/ticker/24hr?symbol=ETHUSDT",
            "/api/v3/ticker/bookTicker?symbols=%5B%22BTCUSDT%22%2C%22ETHUSDT%22%5D",
            "/api/v3/depth?limit=5&symbol=BTCUSDT",
            "/api/v3/trades?limit=3&symbol=BTCUSDT",
            "/api/v3/aggTrades?limit=3&symbol=BTCUSDT",
            "/api/v3/avgPrice?symbol=BTCUSDT",
            "/api/v3/historicalTrades?fromId=0&limit=3&symbol=BTCUSDT",
            "/api/v3/ticker?symbol=BTCUSDT&windowSize=2h",
            "/api/v3/ticker/tradingDay?symbol=BTCUSDT&timeZone=8",
        ]
        used = 0
        for target in targets:
            response = await door.get(target, X_MBX_APIKEY="a-real-key", Cookie="a=b")
            assert response.status_code == 200, response.text
            path, _, query = target.partition("?")
            pairs = list(httpx.QueryParams(query).multi_items())
            direct = await door.world.exchange.answer(path, pairs)
            assert response.json() == msgspec.json.decode(direct.body)
            assert int(response.headers["X-MBX-USED-WEIGHT-1M"]) > used
            used = int(response.headers["X-MBX-USED-WEIGHT-1M"])
        assert door.passed_on == targets
        for request in door.upstream:
            assert "X-MBX-APIKEY" not in request.headers
            assert "Cookie" not in request.headers
        # Not simulated, so Binance has no such path: the market-data host has fewer, too.
        response = await door.get("/api/v3/executionRules?symbol=BTCUSDT")
        assert (response.status_code, response.json()["code"]) == (404, -1020)


async def test_exchange_info_is_whole_and_kept(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        whole = await door.get("/api/v3/exchangeInfo")
        assert whole.headers["Content-Encoding"] == "gzip"
        direct = json.loads((await door.world.exchange.answer("/api/v3/exchangeInfo", [])).body)
        assert whole.json()["symbols"] == direct["symbols"]
        plain = await door.get("/api/v3/exchangeInfo", Accept_Encoding="identity")
        assert plain.content == whole.content
        one = await door.get("/api/v3/exchangeInfo?symbol=ETHUSDT")
        assert one.json()["symbols"] == direct["symbols"][1:2]
        assert len(door.upstream) == 1


PRIVATE = [
    ("GET", "/api/v3/account?timestamp=1&signature=x"),
    ("GET", "/api/v3/myTrades?symbol=BTCUSDT"),
    ("GET", "/api/v3/order?symbol=BTCUSDT"),
    ("GET", "/api/v3/rateLimit/order"),
    ("GET", "/sapi/v1/capital/config/getall"),
    ("POST", "/api/v3/order"),
    ("POST", "/api/v3/order/test"),
    ("POST", "/api/v3/userDataStream"),
    ("PUT", "/api/v3/userDataStream"),
    ("DELETE", "/api/v3/openOrders"),
    ("POST", "/api/v3/nope"),
    ("PATCH", "/"),
]
ODD = [
    "",
    "/",
    "/api/v3",
    "/api/v1/klines",
    "/api/v3/KLINES",
    "/api/v3//klines",
    "//api/v3/klines",
    "///",
    "/api/v3/depth/../account",
    "/api/v3/depth%2f..%2faccount",
    "/..%2f..%2fhealth",
    "/api/v3/ticker/..%2forder",
    "/api/v3/depth%3Fsymbol=BTCUSDT",
    "/api/v3/depth%23x",
    "/api/v3/klin%C3%A9s",
    "/api/v3/depth%00",
    "/api/v3/depth%0d%0aHost:%20evil",
    "/http://evil.example/api/v3/depth",
    "/fapi/v1/klines?symbol=BTCUSDT&interval=1m",
]


async def test_what_is_private_or_not_there_never_reaches_binance(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        for method, target in PRIVATE:
            response = await door.request(method, target, X_MBX_APIKEY="key")
            assert (response.status_code, response.json()["code"]) == (403, -1002), (method, target)
        for method, target in (("POST", "/api/v3/klines"), ("DELETE", "/api/v3/depth")):
            response = await door.request(method, target)
            assert (response.status_code, response.json()["code"]) == (405, -1020), (method, target)
            assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
        for target in ODD:
            response = await door.get(target)
            assert response.json().get("code") in {-1020, -1002}, (target, response.text)
            assert response.status_code in {404, 403}, target
        assert (await door.request("HEAD", "/nope")).status_code == 404
        assert (await door.request("HEAD", f"/api/v3/klines?{GOOD}")).status_code == 200
        preflight = await door.request("OPTIONS", "/api/v3/klines", Access_Control_Request_Headers="x-mbx-time-unit")
        assert preflight.headers["Access-Control-Allow-Origin"] == "*"
        assert preflight.headers["Access-Control-Allow-Headers"] == "x-mbx-time-unit"
        # A page of another origin reads only the headers that are named here.
        exposed = set((await door.get("/api/v3/ping")).headers["Access-Control-Expose-Headers"].split(", "))
        assert exposed >= {"X-MBX-USED-WEIGHT", "X-MBX-USED-WEIGHT-1M", "Retry-After"}
        assert door.passed_on == []


@pytest.mark.parametrize(
    "value", ["SELECT%20*%20FROM%20x", "BTCUSDT'--", "..%2f..%2f", "BTCUSDT%0d%0aX:%20y", "%ED%A0%80"]
)
async def test_odd_values_never_reach_binance(value: str, autojump_clock: MockClock) -> None:
    async with open_door() as door:
        for target in (f"depth?symbol={value}", f"ticker?symbol=BTCUSDT&windowSize={value}"):
            response = await door.get(f"/api/v3/{target}")
            assert (response.status_code, response.json()["code"]) == (400, -1100)
        assert door.upstream == []


# --- limits


async def test_who_asks_too_often_is_told_in_binances_words(autojump_clock: MockClock) -> None:
    async with open_door(Settings(access=AccessSettings(request_rate=1.0))) as door:
        for _ in range(10):
            assert (await door.get("/api/v3/ping")).status_code == 200
        response = await door.get("/api/v3/ping")
        assert response.status_code == 429
        assert response.json()["code"] == -1003
        assert "1 requests a second" in response.json()["msg"]
        assert response.headers["Retry-After"] == "1"


async def test_a_token_is_what_clients_know_as_an_api_key(autojump_clock: MockClock) -> None:
    async with open_door(Settings(access=AccessSettings(tokens=(Token("secret"),)))) as door:
        response = await door.get("/api/v3/ping")
        assert (response.status_code, response.json()["code"]) == (401, -2015)
        assert (await door.get("/api/v3/ping", X_MBX_APIKEY="wrong")).status_code == 401
        for headers in (
            {"X_MBX_APIKEY": "secret"},
            {"Authorization": "Bearer secret"},
            {"Authorization": "Bearer secret", "X_MBX_APIKEY": "a key of Binance's"},
        ):
            assert (await door.get("/api/v3/ping", **headers)).status_code == 200
        assert (await door.get("/api/v3/ping?token=secret", X_MBX_APIKEY="a-key")).status_code == 200
        response = await door.get("/api/v3/ping", Authorization="Bearer wrong", X_MBX_APIKEY="secret")
        assert response.status_code == 401
        await door.get("/api/v3/time", X_MBX_APIKEY="secret")
        assert "X-MBX-APIKEY" not in door.upstream[-1].headers


async def test_while_binance_cannot_be_asked_the_store_still_answers(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        await door.world.until_live()
        door.world.exchange.add_fault(RestDown(seconds=3_000, status=503))
        assert len(await door.rows(f"{GOOD}&limit=900")) == 900
        for target in (f"/api/v3/klines?{GOOD}&startTime=0", "/api/v3/depth?symbol=BTCUSDT"):
            response = await door.get(target)
            assert (response.status_code, response.json()["code"]) == (503, -1001), response.text
            assert int(response.headers["Retry-After"]) >= 1


async def test_a_range_of_several_pages_is_refused_before_its_client_hangs_up(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        await door.world.until_live()
        door.world.exchange.add_fault(RestDown(status=None, delay=6.0, path="/api/v3/klines"))
        target = f"/api/v3/klines?{GOOD}&startTime={START - 2_500 * MINUTE}&limit=1000"
        began = trio.current_time()
        response = await door.get(target)
        assert (response.status_code, response.json()["code"]) == (503, -1001), "it takes two pages of 6 s"
        assert trio.current_time() - began < 10, "what ccxt and python-binance wait"
        assert response.headers["Retry-After"] == "5"
        rows = (await door.get(target)).json()
        assert len(rows) == 1000, "the first page is kept"


async def test_a_ban_is_a_ban_for_our_clients_too(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        await door.rows(GOOD)
        await door.world.until_live()
        door.world.exchange.add_fault(RestBanned(retry_after=300, seconds=300))
        for target in (
            "/api/v3/ticker/price",
            "/api/v3/time",
            f"/api/v3/klines?{GOOD}&startTime=0",
            "/api/v3/klines?symbol=BTCUSDT&interval=1d&timeZone=8",
        ):
            response = await door.get(target)
            assert (response.status_code, response.json()["code"]) == (429, -1003), (target, response.text)
            assert 200 < int(response.headers["Retry-After"]) <= 300
        assert len(await door.rows(GOOD)) == 500


async def test_half_of_the_weight_is_left_to_live_series(autojump_clock: MockClock) -> None:
    async with open_door(simulated=msgspec.structs.replace(REAL_TIME, weight_limit=600)) as door:
        await door.rows(GOOD)
        statuses = []
        for _ in range(20):
            await trio.sleep(1.1)
            statuses.append((await door.get("/api/v3/ticker/24hr")).status_code)
        assert statuses == sorted(statuses)
        assert set(statuses) == {200, 429}
        assert statuses.count(200) <= 4
        assert len(await door.rows(GOOD)) == 500
        assert len(await door.rows("symbol=ETHUSDT&interval=1m")) == 500, "a new series still starts"


async def test_who_takes_only_the_binary_form_is_told_that_there_is_none(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        response = await door.get("/api/v3/ping", Accept="application/sbe", X_MBX_SBE="3:0")
        assert (response.status_code, response.json()["code"]) == (406, -1155)
        response = await door.get("/api/v3/ping", Accept="application/sbe, application/json", X_MBX_SBE="3:0")
        assert response.status_code == 200
