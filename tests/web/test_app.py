"""What holds for every path: errors in one form, CORS for everybody, and methods."""

from __future__ import annotations

import pytest

from candlesync.errors import CandlesyncError, Fenced
from tests.web.builders import Web

PATHS = [
    "/candles/BTCUSDT/1m",
    "/symbols",
    "/health",
    "/ready",
    "/metrics",
    "/",
    "/docs",
    "/openapi.json",
    "/udf/config",
]


@pytest.mark.parametrize("path", [*PATHS, "/candles/NOPE/1m", "/candles/BTCUSDT/2m", "/nope", "/ws/candles"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_every_answer_can_be_read_across_origins(path: str, method: str) -> None:
    web = Web()
    web.topic()
    answer = await web.request(method, path, Origin="https://chart.example")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed >= {"Candlesync-Position", "Candlesync-State", "ETag"}


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_is_answered(path: str) -> None:
    web = Web()
    answer = await web.request(
        "OPTIONS",
        path,
        Origin="https://chart.example",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="if-none-match, x-own",
    )
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert answer.headers["Access-Control-Allow-Headers"] == "if-none-match, x-own"
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert web.supervisor.asked == [], "a preflight starts nothing"


@pytest.mark.parametrize(
    "path", ["/nope", "/candles", "/static", "/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/" + "a" * 9000]
)
async def test_unknown_paths_are_not_found_in_the_one_form(path: str) -> None:
    answer = await Web().get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_not_allowed(path: str, method: str) -> None:
    web = Web()
    answer = await web.request(method, path)
    assert answer.status == 405
    is_datafeed = path.startswith("/udf")  # which has errors of its own form
    assert answer.json["errmsg"] if is_datafeed else answer.code == "method_not_allowed"
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert web.supervisor.asked == []


@pytest.mark.parametrize("path", PATHS)
async def test_head_has_the_headers_of_get(path: str) -> None:
    web = Web()
    web.topic()
    got, head = await web.get(path), await web.request("HEAD", path)
    assert head.status == got.status
    if path == "/metrics":
        del head.headers["Content-Length"], got.headers["Content-Length"]  # the process has worked in between
    assert head.headers == got.headers


async def test_an_http_request_to_a_websocket_path_says_so() -> None:
    answer = await Web().get("/ws/candles")
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_an_error_of_ours_is_500_and_tells_nothing() -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = Fenced("token 7 is not the current one")
    answer = await web.get("/candles/BTCUSDT/1m")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"token" not in answer.body


class Unforeseen(CandlesyncError):
    """An error that nobody has given a status."""


async def test_an_error_that_nobody_foresaw_is_500_too() -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = Unforeseen("secret")
    assert (await web.get("/candles/BTCUSDT/1m")).code == "internal_error"


@pytest.mark.parametrize("host", ["a" * 300, "a b", "é", "", "127.0.0.1:99999", ".."])
async def test_whatever_the_host_is_called(host: str) -> None:
    assert (await Web().get("/health", Host=host)).json == {"status": "alive"}
