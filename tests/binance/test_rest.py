"""What is asked of Binance, and what is made of each thing that it may answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import httpx
import pytest
import structlog.testing
import trio
from trio.testing import MockClock

import candlesync
from candlesync.binance.rest import PassedOn, Rest, RestSettings, open_client
from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.errors import (
    LocationRefused,
    RateLimited,
    UnknownSymbol,
    UnreadableAnswer,
    UpstreamUnavailable,
)

MINUTE = 60_000
SERIES = Series("BTCUSDT", Interval.M1)
INVALID_SYMBOL = {"code": -1121, "msg": "Invalid symbol."}
EXCHANGE_INFO = {
    "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}],
    "symbols": [{"symbol": "BTCUSDT"}, {"symbol": 5}],
}

Answer = httpx.Response | Exception | Callable[[httpx.Request], Awaitable[httpx.Response]]


def row(open_time: int) -> list[object]:
    return [open_time, "2", "3", "1", "2", "10", open_time + MINUTE - 1, "20", 7, "4", "8", "0"]


class Binance:
    """As much of Binance's REST API as its documentation says of klines, with answers of the test's own before it."""

    def __init__(self, *first: Answer, minutes: int = 0) -> None:
        self.rows = [row(number * MINUTE) for number in range(minutes)]
        self.first = list(first)
        self.asked: list[tuple[float, httpx.Request]] = []
        self.used = 0
        self.at_once = 0
        self.most_at_once = 0
        self.delay = 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((trio.current_time(), request))
        self.used += 20 if request.url.path.endswith("exchangeInfo") else 2
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await trio.sleep(self.delay)
            answer = self.first.pop(0) if self.first else self.answer(request)
            if isinstance(answer, Exception):
                raise answer
            if not isinstance(answer, httpx.Response):
                answer = await answer(request)
        finally:
            self.at_once -= 1
        answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self.used)
        return answer

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("exchangeInfo"):
            return httpx.Response(200, json=EXCHANGE_INFO)
        query = request.url.params
        rows = [row for row in self.rows if isinstance(row[0], int) and row[0] <= int(query.get("endTime", 10**15))]
        if "startTime" in query:
            rows = [row for row in rows if isinstance(row[0], int) and row[0] >= int(query["startTime"])]
            return httpx.Response(200, json=rows[: int(query["limit"])])
        return httpx.Response(200, json=rows[-int(query["limit"]) :])

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.asked]


def rest_of(binance: Binance, settings: RestSettings | None = None, budget: WeightBudget | None = None) -> Rest:
    """A `Rest` whose pauses are the longest they may be, but for a hair."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(binance), base_url="http://binance")
    budget = budget or WeightBudget(WeightSettings(spread=0))
    return Rest(client, budget, settings, jitter=lambda: 1.0)


def opens(candles: tuple[Candle, ...]) -> list[int]:
    return [candle.open_time // MINUTE for candle in candles]


async def hang(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


# -- one page ----------------------------------------------------------------------------------------------------------


async def test_a_page_of_klines() -> None:
    binance = Binance(minutes=10)
    rest = rest_of(binance)
    candles = await rest.klines(SERIES, start_time=2 * MINUTE, end_time=5 * MINUTE, limit=500)
    assert opens(candles) == [2, 3, 4, 5]
    assert [candle.closed for candle in candles] == [True, True, True, False]
    request = binance.asked[0][1]
    assert request.method == "GET"
    assert request.url.path == "/api/v3/klines"
    assert dict(request.url.params) == {
        "symbol": "BTCUSDT",
        "interval": "1m",
        "limit": "500",
        "startTime": "120000",
        "endTime": "300000",
    }
    statistics = rest.statistics()
    assert (statistics.requests, statistics.retries, statistics.failures) == (1, 0, {})


async def test_a_month_is_not_a_minute_and_symbols_beyond_ascii_are_encoded() -> None:
    binance = Binance()
    assert await rest_of(binance).klines(Series("币安人生USDT", Interval.MO1)) == ()
    url = binance.asked[0][1].url
    assert url.raw_path.isascii()
    assert dict(url.params) == {"symbol": "币安人生USDT", "interval": "1M", "limit": "1000"}


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_that_binance_does_not_know(limit: int) -> None:
    binance = Binance()
    with pytest.raises(ValueError, match="1 to 1000"):
        await rest_of(binance).klines(SERIES, limit=limit)
    assert not binance.asked


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(MINUTE)], "open time 0 before startTime 60000"),
        ([row(MINUTE), row(3 * MINUTE)], "open time 180000 after endTime 120000"),
        ([row(MINUTE), row(MINUTE + 1), row(2 * MINUTE)], "3 rows where 2 were asked for"),
    ],
)
async def test_rows_that_were_not_asked_for_void_the_answer(rows: list[object], message: str) -> None:
    rest = rest_of(Binance(httpx.Response(200, json=rows)), RestSettings(attempts=1))
    with pytest.raises(UnreadableAnswer, match=message):
        await rest.klines(SERIES, start_time=MINUTE, end_time=2 * MINUTE, limit=2)


async def test_the_client_is_set_up_for_any_base_url() -> None:
    for base in ("http://127.0.0.1:1234/prefix", "http://127.0.0.1:1234/prefix/"):
        async with open_client(RestSettings(base_url=base, connect_timeout=3, read_timeout=4)) as client:
            request = client.build_request("GET", "/api/v3/klines")
            assert request.url == "http://127.0.0.1:1234/prefix/api/v3/klines"
            assert request.headers["User-Agent"] == f"candlesync/{candlesync.__version__}"
            assert (client.timeout.connect, client.timeout.read, client.timeout.pool) == (3, 4, 3)
            assert not client.follow_redirects


@pytest.mark.parametrize("base", ["api.binance.com", "ftp://x", "http://", "http://x/?a=b", "http://x/#f"])
def test_a_base_url_that_is_none(base: str) -> None:
    with pytest.raises(ValueError, match="the REST URL is"):
        open_client(RestSettings(base_url=base))


# -- the newest candles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "requests"), [(1, 1), (2, 1), (1000, 1), (1001, 2), (1999, 2), (2000, 3), (2998, 3), (3000, 4)]
)
async def test_the_newest_candles_over_any_number_of_pages(count: int, requests: int) -> None:
    binance = Binance(minutes=3500)
    candles = await rest_of(binance).newest(SERIES, count)
    assert opens(candles) == list(range(3500 - count, 3500))
    assert [candle.closed for candle in candles] == [True] * (count - 1) + [False]
    assert len(binance.asked) == requests
    assert all(int(request.url.params["limit"]) <= 1000 for _, request in binance.asked)


@pytest.mark.parametrize(("minutes", "requests"), [(0, 1), (1, 1), (700, 1), (1000, 2), (1500, 2)])
async def test_a_young_listing_has_fewer(minutes: int, requests: int) -> None:
    binance = Binance(minutes=minutes)
    assert opens(await rest_of(binance).newest(SERIES, 2500)) == list(range(minutes))
    assert len(binance.asked) == requests


async def test_holes_are_left_as_they_are() -> None:
    binance = Binance(minutes=3000)
    del binance.rows[1900:2100]  # across the joint of two pages
    expected = [number for number in range(3000) if not 1900 <= number < 2100][-1500:]
    assert opens(await rest_of(binance).newest(SERIES, 1500)) == expected


@pytest.mark.parametrize("second", [[], [row(499 * MINUTE)], [row(498 * MINUTE), row(499 * MINUTE)]])
async def test_pages_that_do_not_join_are_no_answer(second: list[object]) -> None:
    first = [row(number * MINUTE) for number in range(500, 1500)]
    rest = rest_of(Binance(httpx.Response(200, json=first), httpx.Response(200, json=second)))
    with pytest.raises(UnreadableAnswer, match="up to 30000000, and it ends with"):
        await rest.newest(SERIES, 1200)


async def test_the_pages_share_one_patience(autojump_clock: MockClock) -> None:
    binance = Binance(minutes=5000)
    binance.delay = 4
    with pytest.raises(UpstreamUnavailable, match="within 2 s"):
        await rest_of(binance).newest(SERIES, 5000, patience=10)
    assert trio.current_time() == 10


# -- exchange info -----------------------------------------------------------------------------------------------------


async def test_exchange_info_tells_the_budget_its_limit() -> None:
    binance = Binance()
    rest = rest_of(binance)
    with structlog.testing.capture_logs() as logs:
        info = await rest.exchange_info()
    assert list(info.symbols) == ["BTCUSDT"]
    assert binance.asked[0][1].url.path == "/api/v3/exchangeInfo"
    assert rest.budget.statistics().limit == 1200
    assert rest.budget.statistics().used == 20
    assert [log["symbols"] for log in logs] == [1]


async def test_exchange_info_that_tells_no_limit_changes_none() -> None:
    rest = rest_of(Binance(httpx.Response(200, json={"symbols": [{"symbol": "BTCUSDT"}]})))
    await rest.exchange_info()
    assert rest.budget.statistics().limit == 6000


# -- the weight --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 400, 403, 429, 451, 503])
async def test_the_used_weight_is_reported_whatever_the_status(status: int) -> None:
    binance = Binance(httpx.Response(status, json=[]))
    binance.used = 700
    rest = rest_of(binance, RestSettings(base_url="http://binance", attempts=1))
    with contextlib.nullcontext() if status == 200 else pytest.raises(UpstreamUnavailable):
        await rest.klines(SERIES, patience=1)
    assert (rest.budget.statistics().used, rest.budget.statistics().in_flight) == (702, 0)


async def test_a_used_up_weight_is_not_asked_for() -> None:
    binance = Binance()
    binance.used = 5398  # 90 % of 6,000 with the first request
    rest = rest_of(binance)
    await rest.klines(SERIES)
    with pytest.raises(RateLimited, match="5400 are used") as caught:
        await rest.klines(SERIES, patience=30)
    assert 59 < caught.value.retry_after <= 60
    assert len(binance.asked) == 1


@pytest.mark.parametrize("status", [429, 418])
async def test_a_ban_is_waited_out_by_who_has_the_patience(status: int, autojump_clock: MockClock) -> None:
    binance = Binance(httpx.Response(status, headers={"Retry-After": "40"}), minutes=1)
    rest = rest_of(binance)
    results: dict[int, float] = {}

    async def ask(patience: int) -> None:
        try:
            await rest.klines(SERIES, patience=patience)
        except RateLimited as error:
            results[patience] = trio.current_time() + error.retry_after
            assert trio.current_time() == 1
        else:
            results[patience] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 100)
        await trio.sleep(1)
        nursery.start_soon(ask, 101)
        nursery.start_soon(ask, 30)
    assert results == pytest.approx({100: 40, 101: 40, 30: 40}, abs=0.1)
    assert binance.times == pytest.approx([0, 40, 40], abs=0.1)
    assert binance.times[1] < binance.times[2], "one after the other"
    assert rest.statistics().failures == {"rate_limited": 1}
    assert rest.statistics().retries == 1


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "7", 7),
        (429, None, 10),
        (429, "soon", 10),
        (429, "Wed, 21 Oct 2015 07:28:00 GMT", 10),
        (429, "-5", 10),
        (429, "0", 1),
        (418, None, 120),
        (418, "1.5", 120),
        (418, "99999999", 3 * 86_400),
        (418, "9" * 400, 120),
    ],
)
async def test_how_long_a_ban_lasts(status: int, header: str | None, seconds: float, autojump_clock: MockClock) -> None:
    headers = {} if header is None else {"Retry-After": header}
    rest = rest_of(Binance(httpx.Response(status, headers=headers)))
    with pytest.raises(RateLimited) as caught:
        await rest.klines(SERIES, patience=0.5)
    assert caught.value.retry_after == seconds == rest.budget.banned_for
    assert trio.current_time() == 0


async def test_who_waits_for_a_place_when_a_ban_comes_does_not_send(autojump_clock: MockClock) -> None:
    binance = Binance(httpx.Response(429, headers={"Retry-After": "60"}), minutes=1)
    binance.delay = 1
    rest = rest_of(binance, RestSettings(concurrency=1))

    async def ask() -> None:
        with pytest.raises(RateLimited):
            await rest.klines(SERIES, patience=30)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert trio.current_time() == 1
    assert len(binance.asked) == 1
    assert rest.budget.statistics().in_flight == 0


async def test_a_ban_is_logged_once_for_all_in_flight(autojump_clock: MockClock) -> None:
    binance = Binance(*(httpx.Response(429) for _ in range(4)))
    rest = rest_of(binance)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(partial(rest.klines, SERIES, patience=20))
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["Binance asked us to wait"]
    assert len(binance.asked) == 8


# -- failures that pass ------------------------------------------------------------------------------------------------


PASSING: dict[str, tuple[Callable[[], Answer], str]] = {
    "500": (lambda: httpx.Response(500), "server"),
    "503": (lambda: httpx.Response(503, text="<html>busy</html>"), "server"),
    "504": (lambda: httpx.Response(504, json={"code": -1007, "msg": "Timeout waiting"}), "server"),
    "connect timeout": (lambda: httpx.ConnectTimeout("slow"), "timeout"),
    "read timeout": (lambda: httpx.ReadTimeout("slow"), "timeout"),
    "pool timeout": (lambda: httpx.PoolTimeout("slow"), "timeout"),
    "refused": (lambda: httpx.ConnectError("refused"), "connection"),
    "reset": (lambda: httpx.ReadError("reset"), "connection"),
    "truncated": (lambda: httpx.RemoteProtocolError("incomplete"), "connection"),
    "bad gzip": (lambda: httpx.DecodingError("gzip"), "connection"),
    "hangs": (lambda: hang, "timeout"),
    "no JSON": (lambda: httpx.Response(200, text="<html>maintenance</html>"), "unreadable"),
    "half an answer": (lambda: httpx.Response(200, text='[[1,"2","3"'), "unreadable"),
    "bad row": (lambda: httpx.Response(200, json=[row(0), row(0)]), "unreadable"),
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_failure_that_may_pass_is_asked_again(name: str, autojump_clock: MockClock) -> None:
    answer, kind = PASSING[name]
    binance = Binance(answer(), answer(), minutes=3)
    rest = rest_of(binance, RestSettings(answer_timeout=7))
    assert opens(await rest.klines(SERIES)) == [0, 1, 2]
    each = 7 if name == "hangs" else 0
    assert binance.times == [0, each + 0.5, 2 * each + 1.5]
    statistics = rest.statistics()
    assert (statistics.requests, statistics.retries, statistics.failures) == (3, 2, {kind: 2})
    assert statistics.unreadable == (2 if kind == "unreadable" else 0)
    assert rest.budget.statistics().in_flight == 0


@pytest.mark.parametrize("name", PASSING)
async def test_a_failure_that_does_not_pass_is_said(name: str, autojump_clock: MockClock) -> None:
    answer, kind = PASSING[name]
    binance = Binance(*(answer() for _ in range(9)))
    rest = rest_of(binance, RestSettings(answer_timeout=3))
    with pytest.raises(UpstreamUnavailable, match="/api/v3/klines failed 4 times: ") as caught:
        await rest.klines(SERIES)
    assert type(caught.value) is (UnreadableAnswer if kind == "unreadable" else UpstreamUnavailable)
    assert len(binance.asked) == 4
    assert rest.statistics().failures == {kind: 4}


@pytest.mark.parametrize(("jitter", "pauses"), [(1.0, [0.5, 1, 2, 2, 2]), (0.0, [0.25, 0.5, 1, 1, 1])])
async def test_pauses_grow_to_their_cap(jitter: float, pauses: list[float], autojump_clock: MockClock) -> None:
    binance = Binance(*(httpx.Response(500) for _ in range(6)))
    client = httpx.AsyncClient(transport=httpx.MockTransport(binance), base_url="http://binance")
    rest = Rest(client, None, RestSettings(attempts=6, backoff_cap=2), jitter=lambda: jitter)
    with pytest.raises(UpstreamUnavailable, match="Binance answered 500"):
        await rest.klines(SERIES)
    assert [after - before for before, after in pairwise(binance.times)] == pauses


async def test_no_pause_is_begun_that_outlasts_the_patience(autojump_clock: MockClock) -> None:
    rest = rest_of(Binance(*(httpx.Response(500) for _ in range(4))))
    with pytest.raises(UpstreamUnavailable, match="failed 2 times"):
        await rest.klines(SERIES, patience=1.4)
    assert trio.current_time() == 0.5


async def test_patience_ends_what_hangs(autojump_clock: MockClock) -> None:
    binance = Binance(httpx.Response(503), hang)
    rest = rest_of(binance)
    with pytest.raises(UpstreamUnavailable, match=r"within 5 s; the last attempt: Binance answered 503") as caught:
        await rest.klines(SERIES, patience=5)
    assert trio.current_time() == 5
    assert type(caught.value) is UpstreamUnavailable
    assert rest.statistics().failures == {"server": 1, "impatience": 1}
    assert rest.budget.statistics().in_flight == 0


async def test_an_answer_in_drops_is_given_up(autojump_clock: MockClock) -> None:
    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await trio.sleep(1)

    async def dripping(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=drops())

    binance = Binance(dripping, minutes=1)
    rest = rest_of(binance, RestSettings(answer_timeout=5))
    assert len(await rest.klines(SERIES, patience=20)) == 1
    assert binance.times == [0, 5.5]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_an_answer_that_does_not_end_is_unreadable(attempts: int, autojump_clock: MockClock) -> None:
    given = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 1024
            await trio.lowlevel.checkpoint()

    async def flooding(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=flood())

    binance = Binance(flooding, minutes=1)
    rest = rest_of(binance, RestSettings(klines_bytes=10_000, attempts=attempts))
    if attempts == 1:
        with pytest.raises(UnreadableAnswer, match="more than 10000 bytes"):
            await rest.klines(SERIES)
    else:
        assert len(await rest.klines(SERIES)) == 1
    assert given == 10
    assert rest.statistics().unreadable == 1


async def test_unreadable_answers_are_logged() -> None:
    rest = rest_of(Binance(httpx.Response(200, text="x" * 10_000)), RestSettings(attempts=1))
    with structlog.testing.capture_logs() as logs, pytest.raises(UnreadableAnswer):
        await rest.klines(SERIES)
    assert [log["event"] for log in logs] == ["Binance gave an unreadable answer"]
    assert logs[0]["params"]["symbol"] == "BTCUSDT"
    assert len(str(logs[0])) < 1000


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_refused_location_is_said_once_in_words_a_person_understands() -> None:
    binance = Binance(httpx.Response(451), httpx.Response(451, text="x" * 1_000_000))
    rest = rest_of(binance, RestSettings(base_url="http://binance"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(LocationRefused, match="does not serve the location") as caught:
                await rest.klines(SERIES)
            assert "https://data-api.binance.vision" in str(caught.value)
            assert "wss://data-stream.binance.vision" in str(caught.value)
    assert len(binance.asked) == 2
    assert [log["log_level"] for log in logs] == ["error"]
    assert rest.statistics().failures == {"location": 2}
    assert rest.statistics().url == "http://binance"


@asynccontextmanager
async def asking(answer: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]) -> AsyncIterator[Rest]:
    """A `Rest` with the client that it has in service, over a network of the test's own."""
    settings = RestSettings()
    async with open_client(settings) as client:
        client._transport = httpx.MockTransport(answer)
        client._mounts = {}  # a proxy of the machine that runs the test
        yield Rest(client, WeightBudget(WeightSettings(spread=0)), settings)


async def test_after_451_the_market_data_host_is_asked_at_once_and_from_then_on(autojump_clock: MockClock) -> None:
    binance = Binance(minutes=3)
    hosts: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        await trio.sleep(1)
        return httpx.Response(451) if request.url.host == "api.binance.com" else binance.answer(request)

    with structlog.testing.capture_logs() as logs:
        async with asking(answer) as rest:
            async with trio.open_nursery() as nursery:
                for _ in range(3):  # all of them on the way when the first one is refused
                    nursery.start_soon(rest.klines, SERIES)
            assert trio.current_time() == 2
            assert opens(await rest.klines(SERIES, limit=2)) == [1, 2]
    assert hosts == ["api.binance.com"] * 3 + ["data-api.binance.vision"] * 4
    assert rest.statistics().url == "https://data-api.binance.vision"
    assert rest.statistics().failures == {"location": 3}
    assert [log["event"] for log in logs] == ["location refused: the next host is asked from now on"]


async def test_when_the_last_host_refuses_as_well_it_is_said(autojump_clock: MockClock) -> None:
    hosts: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(451)

    with structlog.testing.capture_logs() as logs:
        await refused_twice(answer)
    assert hosts == ["api.binance.com", *["data-api.binance.vision"] * 2]
    assert [log["log_level"] for log in logs] == ["warning", "error"]


async def refused_twice(answer: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]) -> None:
    async with asking(answer) as rest:
        for _ in range(2):
            with pytest.raises(LocationRefused, match=r"does not serve the location of this machine \(451\)$"):
                await rest.klines(SERIES)


# -- venues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("venue", "host", "path", "weights", "listing"),
    [
        (SPOT, "api.binance.com", "/api/v3", (2, 2, 2), 20),
        (SPOT_US, "api.binance.us", "/api/v3", (1, 1, 1), 10),
        (USDM, "fapi.binance.com", "/fapi/v1", (1, 2, 5), 1),
    ],
    ids=lambda value: value.name if isinstance(value, Venue) else "",
)
async def test_each_venue_has_its_host_paths_and_weights(
    venue: Venue, host: str, path: str, weights: tuple[int, int, int], listing: int
) -> None:
    settings = RestSettings(venue=venue)
    budget = WeightBudget(WeightSettings(limit=venue.weight_limit, spread=0))
    spent: list[int] = []
    urls: list[httpx.URL] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        spent.append(budget.statistics().in_flight)
        urls.append(request.url)
        return Binance(minutes=3).answer(request)

    async with open_client(settings) as client:
        client._transport, client._mounts = httpx.MockTransport(answer), {}
        rest = Rest(client, budget, settings)
        for limit in (99, 499, 1000):
            await rest.klines(SERIES, limit=limit)
        await rest.exchange_info()
    assert tuple(spent) == (*weights, listing)
    assert {url.host for url in urls} == {host}
    assert [url.path for url in urls] == [f"{path}/klines"] * 3 + [f"{path}/exchangeInfo"]
    assert Rest(client, None, settings).budget.statistics().limit == venue.weight_limit


async def test_an_unknown_symbol() -> None:
    binance = Binance(httpx.Response(400, json=INVALID_SYMBOL))
    with pytest.raises(UnknownSymbol, match="does not list BTCUSDT"):
        await rest_of(binance).klines(SERIES)
    assert len(binance.asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(400, json={"code": -1120, "msg": "Invalid interval."}), r"400 \(-1120: Invalid interval.\)"),
        (httpx.Response(400, text="<html>"), "refused /api/v3/klines: 400$"),
        (httpx.Response(404, json=INVALID_SYMBOL), "404"),
        (httpx.Response(403, text="<html>"), "firewall refused /api/v3/klines: 403"),
        (httpx.Response(403, text="x" * 1_000_000), "firewall"),
        (httpx.Response(302, headers={"Location": "http://elsewhere/"}), "302"),
        (httpx.Response(204), "204"),
    ],
)
async def test_other_refusals_are_said_and_not_repeated(answer: httpx.Response, message: str) -> None:
    binance = Binance(answer)
    rest = rest_of(binance)
    with pytest.raises(UpstreamUnavailable, match=message) as caught:
        await rest.klines(SERIES)
    assert type(caught.value) is UpstreamUnavailable
    assert len(binance.asked) == 1
    assert rest.statistics().failures == {"refused": 1}


# -- many at once, and cancellation ------------------------------------------------------------------------------------


async def test_so_many_requests_at_once_and_no_more(autojump_clock: MockClock) -> None:
    binance = Binance(minutes=1)
    binance.delay = 1
    rest = rest_of(binance, RestSettings(concurrency=3))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(rest.klines, SERIES)
    assert binance.most_at_once == 3
    assert trio.current_time() == 4
    assert rest.statistics().last_latency == 1


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the task it was made in has taken ``steps`` steps: the next await raises `Cancelled`."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.steps = steps
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def test_cancelled_at_any_await_the_counters_come_back(autojump_clock: MockClock) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        body = json.dumps([row(0)]).encode()
        for part in (body[:10], body[10:]):
            await trio.sleep(1)
            yield part

    async def slow(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=slowly())

    for steps in range(100):
        binance = Binance(httpx.Response(429), httpx.Response(503), slow, minutes=1)
        rest = rest_of(binance, RestSettings(concurrency=1))
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, steps)
            if steps == 0:
                scope.cancel()
            trio.lowlevel.add_instrument(instrument)
            try:
                await rest.klines(SERIES)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        budget = rest.budget.statistics()
        assert (budget.in_flight, budget.waiting) == (0, 0)
        assert budget.used == binance.used  # an answer that was not waited for counts as well
        binance.first.clear()
        assert len(await rest.klines(SERIES)) == 1  # the one place is free again
        if not scope.cancelled_caught:
            break
    assert not scope.cancelled_caught
    assert steps > 10


async def test_an_answer_cut_short_on_a_real_connection() -> None:
    body = json.dumps([row(0)]).encode()
    answers = [b"%d\r\n\r\n" % (len(body) + 1) + body, b"%d\r\n\r\n" % len(body) + body]

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + answers.pop(0))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        settings = RestSettings(base_url=f"http://127.0.0.1:{port}", backoff_first=0.01)
        async with open_client(settings) as client:
            rest = Rest(client, None, settings)
            assert len(await rest.klines(SERIES)) == 1
        nursery.cancel_scope.cancel()
    assert rest.statistics().failures == {"connection": 1}


async def test_a_flood_on_a_real_connection_leaves_nothing_behind() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"400\r\n" + b"x" * 1024 + b"\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        settings = RestSettings(base_url=f"http://127.0.0.1:{port}", attempts=1, klines_bytes=10_000)
        async with open_client(settings) as client:
            # A generator of httpx's that was left unfinished would be a ResourceWarning, and the test's failure.
            with pytest.raises(UnreadableAnswer, match="more than 10000 bytes"):
                await Rest(client, None, settings).klines(SERIES)
        nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    settings = RestSettings(base_url=f"http://127.0.0.1:{port}", attempts=2, backoff_first=0.01)
    async with open_client(settings) as client:
        with pytest.raises(UpstreamUnavailable, match="connection failed"):
            await Rest(client, None, settings).klines(SERIES)


# -- what is passed on -------------------------------------------------------------------------------------------------


async def pass_on(rest: Rest, longest: int = 1000, patience: float = 30.0) -> PassedOn:
    return await rest.pass_on(
        "/api/v3/ticker/price",
        {"symbol": "BTCUSDT"},
        weight=4,
        longest=longest,
        headers={"X-MBX-TIME-UNIT": "MICROSECOND"},
        patience=patience,
    )


async def test_an_answer_is_passed_on_as_it_is() -> None:
    body = b'{ "price" : "1.10" }'
    binance = Binance(httpx.Response(200, content=body))
    rest = rest_of(binance)
    assert await pass_on(rest) == PassedOn(200, body)
    (_, request) = binance.asked[0]
    assert request.method == "GET"
    assert str(request.url) == "http://binance/api/v3/ticker/price?symbol=BTCUSDT"
    assert request.headers["X-MBX-TIME-UNIT"] == "MICROSECOND"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"code":-1121,"msg":"Invalid symbol."}'),
        (404, b"<html>404 Not found</html>"),
        (406, b'{"code":0,"msg":""}'),
    ],
)
async def test_a_refusal_of_what_is_passed_on_is_an_answer(status: int, body: bytes) -> None:
    assert await pass_on(rest_of(Binance(httpx.Response(status, content=body)))) == PassedOn(status, body)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(403, json=INVALID_SYMBOL), UpstreamUnavailable),
        (httpx.Response(451, json=INVALID_SYMBOL), LocationRefused),
        (httpx.Response(400, content=b"<html>"), UpstreamUnavailable),
        (httpx.Response(418, headers={"Retry-After": "120"}, json=INVALID_SYMBOL), RateLimited),
    ],
)
async def test_what_is_no_answer_of_binances_is_not_passed_on(
    answer: httpx.Response, error: type[Exception], autojump_clock: MockClock
) -> None:
    with pytest.raises(error):
        await pass_on(rest_of(Binance(answer), RestSettings(base_url="http://binance")))


@pytest.mark.parametrize("body", [b"<html>", b'{"a":', b"", b"[" + b"1," * 600 + b"1]"])
async def test_an_answer_that_is_no_json_or_too_long_is_asked_again(body: bytes, autojump_clock: MockClock) -> None:
    rest = rest_of(Binance(httpx.Response(200, content=body), httpx.Response(200, content=b"[]")))
    assert await pass_on(rest) == PassedOn(200, b"[]")
    assert rest.statistics().unreadable == 1
