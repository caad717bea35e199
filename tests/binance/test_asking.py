"""What is made of each thing that Binance may answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import httpx
import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings, open_client
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.errors import (
    LocationRefused,
    RateLimited,
    UnknownSymbol,
    UnreadableAnswer,
    UpstreamUnavailable,
)
from tests.binance.answers import INVALID_SYMBOL, SERIES, Answer, Binance, hang, opens, rest_of, row

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
