"""What is asked of Binance."""

from __future__ import annotations

import httpx
import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from candlesync.binance.rest import PassedOn, Rest
from candlesync.binance.rest_client import RestSettings, open_client
from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.errors import (
    LocationRefused,
    RateLimited,
    UnreadableAnswer,
    UpstreamUnavailable,
)
from tests.binance.answers import INVALID_SYMBOL, MINUTE, SERIES, Binance, opens, rest_of, row

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
