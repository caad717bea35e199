"""What became of requests, by API."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.errors import UpstreamUnavailable
from candlesync.web.access import AccessSettings, Token
from candlesync.web.requests import Requests
from tests.metrics import read_samples
from tests.web.builders import Web


def nonzero(web: Web) -> dict[str, dict[str, int]]:
    """The counts by API and status."""
    found: dict[str, dict[str, int]] = {}
    for (api, status), count in web.requests.answered.items():
        if count:
            found.setdefault(api, {})[status] = count
    return found


async def test_each_answer_counts_once_to_its_api() -> None:
    web = Web()
    web.topic()
    etag = (await web.get("/candles/BTCUSDT/1m")).headers["ETag"]
    for path in ("/candles/BTCUSDT/1m?limit=x", "/candles/NOPE/1m", "/candles", "/ws/candles/BTCUSDT"):
        assert 400 <= (await web.get(path)).status < 500
    assert (await web.get("/candles/BTCUSDT/1m", If_None_Match=etag)).status == 304
    assert (await web.request("HEAD", "/candles/BTCUSDT/1m")).status == 200
    for path in ("/symbols", "/health", "/", "/docs", "/openapi.json", "/static/candlesync.js", "/udf/config"):
        assert (await web.get(path)).status == 200
    for path in ("/binance/api/v3/ping", f"/binance/api/v3/klines?symbol=BTCUSDT&interval={Interval.M1}"):
        assert (await web.get(path)).status == 200
    for path in ("/binance/api/v3/order", "/binance", "/udf/nothing", "/candlesX", "/no/such", "/symbols\r\n"):
        assert (await web.get(path)).status in {400, 403, 404}
    web.supervisor.refusals["ETHUSDT"] = UpstreamUnavailable("away")
    assert (await web.get("/candles/ETHUSDT/1m")).status == 503
    assert nonzero(web) == {
        "candles": {"2xx": 2, "3xx": 1, "4xx": 4, "5xx": 1},
        "symbols": {"2xx": 1},
        "probes": {"2xx": 1},
        "page": {"2xx": 4},
        "binance": {"2xx": 2, "4xx": 2},
        "udf": {"2xx": 1, "4xx": 1},
        "other": {"4xx": 3},
    }


async def test_what_is_refused_before_anything_looks_at_it_counts_too() -> None:
    web = Web(access=AccessSettings(tokens=(Token("sesame"),)))
    for path in ("/candles/BTCUSDT/1m", "/binance/api/v3/ping", "/binance/api/v3/ping?token=sesame"):
        await web.asked(path)
    assert nonzero(web) == {"candles": {"4xx": 1}, "binance": {"4xx": 1, "2xx": 1}}


async def test_how_long_an_answer_takes_to_begin_and_who_does_not_wait_for_it(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic(series=Series("ETHUSDT", Interval.M1))
    web.supervisor.delay = 4
    await web.get("/candles/ETHUSDT/1m")
    with trio.move_on_after(3):
        await web.asked("/candles/ETHUSDT/1m")
    found = read_samples((await web.get("/metrics")).body.decode())
    assert found["candlesync_requests_total", ("2xx", "candles")] == 1
    assert found["candlesync_requests_total", ("candles", "none")] == 1
    assert found["candlesync_requests_total", ("5xx", "udf")] == 0
    assert found["candlesync_request_seconds_sum", ("candles",)] == pytest.approx(4)
    assert found["candlesync_request_seconds_bucket", ("2.5", "candles")] == 0
    assert found["candlesync_request_seconds_bucket", ("5.0", "candles")] == 1
    assert found["candlesync_request_seconds_count", ("candles",)] == 1


async def test_paths_that_clients_make_up_are_one_api() -> None:
    web = Web()
    for number in range(50):
        await web.asked(f"/x{number}/y")
    assert nonzero(web) == {"other": {"4xx": 50}}
    assert web.requests.seconds.keys() == set(web.requests.apis)


async def test_nothing_stands_between_a_websocket_and_what_serves_it() -> None:
    served: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        served.extend((scope, receive, send))

    given = ({"type": "websocket", "path": "/ws/candles"}, object(), object())
    await Requests().before(serve)(*given)
    assert all(one is other for one, other in zip(served, given, strict=True))


async def test_websockets_that_were_opened_and_that_could_not_be() -> None:
    web = Web()
    web.topic()
    for path in ("/ws/candles/BTCUSDT", "/ws/candles", "/binance/ws/btcusdt@kline_1m", "/binance/ws"):
        async with web.socket(path) as socket:
            await socket.accepted.wait()
    for path in ("/ws/candles/NOPE", "/binance/ws/nope@kline_1m", "/binance/ws/btcusdt@trade"):
        async with web.socket(path) as socket:
            await socket.closed.wait()
    found = read_samples((await web.get("/metrics")).body.decode())
    assert found["candlesync_sockets_opened_total", ()] == 4
    assert found["candlesync_binance_sockets_opened_total", ()] == 2
    assert found["candlesync_sockets_refused_total", ()] == 3
    assert found["candlesync_binance_sockets_refused_total", ()] == 2
    assert found["candlesync_sockets", ()] == 0
