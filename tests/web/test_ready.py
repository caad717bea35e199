"""The short way answers as the framework does, byte for byte, whatever is asked; and only what it may."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, cast

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.errors import TooMany
from tests.builders import BTC, candle, forming, minute, minutes
from tests.scopes import HOST, http_scope
from tests.web.builders import LIFE, Web, commit, on_a_port, read_all

PATH = "/candles/BTCUSDT/1m"
Headers = list[tuple[bytes, bytes]]
Exchanged = tuple[int, Headers, bytes]


class Observed(Web):
    """The application, and how many requests came to the framework."""

    def __init__(self) -> None:
        super().__init__(history=300)
        self.through_the_framework = 0
        self.app.before_request(self._count)
        self.series = self.topic(minutes(0, 249))
        commit(self.series, forming(minute(250)))
        month = Series("BTCUSDT", Interval.MO1)
        self.topic([candle(month.interval.floor(minute(0)), interval=month.interval)], series=month, state=State.STALE)

    async def _count(self) -> None:
        self.through_the_framework += 1

    async def ask(self, target: str, headers: Headers, *, method: str = "GET", root_path: str = "") -> Exchanged:
        """One request as Hypercorn hands it on."""
        scope = http_scope(target, [HOST, *headers], method=method) | {"root_path": root_path}
        messages: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            messages.append(message)

        await cast("Any", self.app)(scope, partial(trio.sleep_forever), send)
        start, *parts = messages
        assert start["type"] == "http.response.start"
        assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
        return start["status"], list(start["headers"]), b"".join(part["body"] for part in parts)

    async def ask_both_ways(self, target: str, headers: Headers, method: str) -> tuple[Exchanged, Exchanged]:
        """The same, as it comes and by way of the framework: there goes what says that it has a body, of no bytes."""
        before = self.through_the_framework
        as_it_comes = await self.ask(target, headers, method=method)
        between = self.through_the_framework
        by_the_framework = await self.ask(target, [*headers, (b"content-length", b"0")], method=method)
        assert self.through_the_framework == between + 1 <= before + 2
        return as_it_comes, by_the_framework


TAG = f"{LIFE}-2-1000"
SYMBOLS = st.sampled_from(
    ["BTCUSDT", "btcusdt", "bTcUsDt", "%42TCUSDT", "B%54c%75sdt", "NOPE", "BTC%2fUSDT", "%20", ""]
)
INTERVALS = st.sampled_from(["1m", "%31m", "1M", "1h", "2m", "1", "1m%0A", "1m/", "1m/x", ""])
VALUES = st.sampled_from(
    ["1", "7", "250", "1000", "1001", "0", "007", "-1", "", "x", "%31%30", "1.0", "1" * 13]
) | st.just(str(minute(200) // 1000))
PARAMETERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["limit", "before", "%6cimit", "LIMIT", "other"]), VALUES).map("=".join),
        st.sampled_from(["limit", "", "=", "a=b", "limit=5;before=1", "limit=+5", "limit==5"]),
    ),
    max_size=3,
).map("&".join)
TAGS = st.sampled_from(
    [
        f'"{TAG}"',
        f'W/"{TAG}"',
        f'"{TAG}-gzip"',
        f'W/"{TAG}-gzip"',
        f'"{LIFE}-1-1000"',
        "*",
        '"',
        "W/",
        "",
        "a,b",
        TAG,
        "\xff",
    ]
)
CODINGS = st.sampled_from(
    ["gzip", "gzip;q=0", "identity;q=0", "*", "*;q=0", "br", "identity", "gzip;q=0.3", "", ";q", "\xe9"]
)
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("if-none-match"), st.lists(TAGS, min_size=1, max_size=3).map(", ".join)),
        st.tuples(st.just("accept-encoding"), st.lists(CODINGS, min_size=1, max_size=3).map(",".join)),
        st.tuples(
            st.sampled_from(["origin", "user-agent", "cookie", "range"]), st.sampled_from(["x", "bytes=0-9", ""])
        ),
        st.tuples(st.sampled_from(["if-none-match", "accept-encoding"]), st.text("abz*;,=\"'q01. W/", max_size=12)),
    ),
    max_size=4,
).map(lambda pairs: [(name.encode(), value.encode("latin-1")) for name, value in pairs])


@given(
    symbol=SYMBOLS,
    interval=INTERVALS,
    query=PARAMETERS,
    headers=HEADERS,
    method=st.sampled_from(["GET", "HEAD", "OPTIONS", "POST"]),
)
@example(symbol="BTCUSDT", interval="1m", query="", headers=[], method="GET")
@example(symbol="btcusdt", interval="1m", query="limit=10&limit=10", headers=[], method="GET")
def test_both_ways_answer_the_same(symbol: str, interval: str, query: str, headers: Headers, method: str) -> None:
    async def ask() -> None:
        web = Observed()
        target = f"/candles/{symbol}/{interval}" + (f"?{query}" if query else "")
        as_it_comes, by_the_framework = await web.ask_both_ways(target, headers, method)
        assert as_it_comes == by_the_framework

    trio.run(ask)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        (PATH, 200),
        ("/candles/btcusdt/1m", 200),
        ("/candles/%62tcusdt/1m", 200),
        ("/candles/BTCUSDT/1M", 200),
        (f"{PATH}?limit=5", 200),
        (f"{PATH}?limit=100&before={minute(200) // 1000}", 200),
        (f"{PATH}?limit=1&before=1700000100", 200),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"if-none-match", b'"other"'), (b"accept-encoding", b"gzip, deflate, br, zstd")],
        [(b"origin", b"https://chart.example"), (b"cookie", b"a=b"), (b"range", b"bytes=0-9")],
    ],
)
async def test_what_most_ask_goes_the_short_way(target: str, status: int, method: str, headers: Headers) -> None:
    web = Observed()
    answer = await web.ask(target, headers, method=method)
    assert answer[0] == status
    assert web.through_the_framework == 0
    assert dict(answer[1])[b"access-control-allow-origin"] == b"*"
    assert answer == (await web.ask_both_ways(target, headers, method))[1]


async def test_what_is_known_goes_the_short_way() -> None:
    web = Observed()
    tag = dict((await web.ask(PATH, []))[1])[b"etag"]
    for value in (tag, b"W/" + tag, b'"a", ' + tag, b"*"):
        assert (await web.ask(PATH, [(b"if-none-match", value)]))[0] == 304
    assert (await web.ask(PATH, [(b"if-none-match", b'"a"'), (b"if-none-match", tag)]))[0] == 304, (
        "one list in two lines"
    )
    assert web.through_the_framework == 0


@pytest.mark.parametrize(
    ("target", "headers", "method", "status"),
    [
        (PATH, [], "OPTIONS", 200),
        (PATH, [], "POST", 405),
        (PATH, [(b"content-length", b"3")], "GET", 200),
        (PATH, [(b"transfer-encoding", b"chunked")], "GET", 200),
        (PATH, [(b"expect", b"100-continue")], "GET", 200),
        (f"{PATH}/", [], "GET", 200),
        (f"{PATH}?limit=1001", [], "GET", 400),
        (f"{PATH}?limit=5&limit=5", [], "GET", 400),
        (f"{PATH}?%6cimit=5", [], "GET", 200),
        (f"{PATH}?other=5", [], "GET", 200),
        ("/candles/BTCUSDT/2m", [], "GET", 400),
        ("/candles/NOPE/1m", [], "GET", 404),
        ("/candles/BTCUSDT", [], "GET", 404),
        ("/health", [], "GET", 200),
    ],
)
async def test_all_else_is_the_framework_s(target: str, headers: Headers, method: str, status: int) -> None:
    web = Observed()
    answer = await web.ask(target, headers, method=method)
    assert answer[0] == status
    assert web.through_the_framework == 1


async def test_below_a_root_path_the_framework_finds_the_way() -> None:
    web = Observed()
    assert (await web.ask(f"/below{PATH}", [], root_path="/below"))[0] == 200
    assert (await web.ask(PATH, [], root_path="/below"))[0] == 404


async def test_a_refusal_is_the_framework_s() -> None:
    web = Observed()
    web.supervisor.refusals["BTCUSDT"] = TooMany("200 symbols")
    assert (await web.ask(PATH, []))[0] == 429


async def test_asking_is_noted_as_interest(autojump_clock: MockClock) -> None:
    web = Observed()
    await trio.sleep(100)
    await web.ask(PATH, [])
    assert web.series.idle_since == 100
    await trio.sleep(100)
    await web.ask(PATH, [(b"if-none-match", b"*")])
    assert web.series.idle_since == 200
    await web.ask(f"{PATH}?limit=0", [])
    assert web.supervisor.asked == [BTC, BTC], "a bad question is none"
    assert web.through_the_framework == 1


async def test_it_is_one_answer_to_a_client_on_a_connection() -> None:
    """Through Hypercorn: no body for HEAD and 304, and the connection stays open."""
    web = Observed()
    tag = dict((await web.ask(PATH, []))[1])[b"etag"].decode()
    requests = [
        f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n",
        f"GET {PATH}?limit=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    async with on_a_port(web) as port:
        connection = await port.connect()
        await connection.send_all("".join(requests).encode())
        received = await read_all(connection)
        await connection.aclose()
    head, unchanged, close, body = received.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert unchanged.startswith(b"HTTP/1.1 304 ")
    assert close.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(body)) == 2
    assert web.through_the_framework == 0
