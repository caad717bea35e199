"""What is refused before a door's routes see it has the door's form: access, limits, and paths that are not there."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.web.access import AccessSettings, Token
from tests.doors.binance.world import open_door
from tests.web.builders import Answer, Web

LIMITED = AccessSettings(request_rate=0.1, unlimited=())
WITH_TOKEN = AccessSettings(tokens=(Token("secret"),))
OF_ONE_ORIGIN = AccessSettings(origins=("https://chart.example",))
REFUSED = [(WITH_TOKEN, 401, -2015), (OF_ONE_ORIGIN, 403, -1002), (LIMITED, 429, -1003)]
ORIGIN = ("origin", "https://other.example")
PATHS = ("/binance/api/v3/ping", "/binance/nope", "/binance")
SOCKETS = ("/binance/ws/btcusdt@kline_1m", "/binance/stream", "/binance/nope")


def in_binances_form(answer: Answer) -> tuple[int, Any]:
    value = answer.json
    assert list(value) == ["code", "msg"]
    assert value["msg"]
    assert answer.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in answer.headers) == (answer.status == 429)
    return answer.status, value["code"]


@pytest.mark.parametrize(("settings", "status", "code"), REFUSED)
async def test_who_may_not_ask_is_told_in_binances_form(
    settings: AccessSettings, status: int, code: int, autojump_clock: MockClock
) -> None:
    web = Web(access=settings)
    if settings is LIMITED:
        await web.asked("/symbols", ORIGIN)
    for path in PATHS:
        assert in_binances_form(await web.asked(path, ORIGIN)) == (status, code), path
    for path in SOCKETS:
        async with web.socket(path, ORIGIN, client="192.0.2.1") as socket:
            assert in_binances_form(await socket.until_refused()) == (status, code), path


@pytest.mark.parametrize(("settings", "status"), [(settings, status) for settings, status, _ in REFUSED])
async def test_who_may_not_ask_is_told_in_the_form_of_the_datafeed_protocol(
    settings: AccessSettings, status: int, autojump_clock: MockClock
) -> None:
    web = Web(access=settings)
    if settings is LIMITED:
        await web.asked("/symbols", ORIGIN)
    for path in ("/udf/config", "/udf/history", "/udf/nope", "/udf"):
        answer = await web.asked(path, ORIGIN)
        assert (answer.status, list(answer.json), answer.json["s"]) == (status, ["s", "errmsg"], "error"), path


async def test_the_service_knows_the_forms(autojump_clock: MockClock) -> None:
    async with open_door(Settings(access=WITH_TOKEN)) as door:
        assert (await door.get("/api/v3/ping")).json()["code"] == -2015
        answer = await door.world.get("/udf/config")
        assert (answer.status_code, (await answer.get_json())["s"]) == (401, "error")
        assert "error" in await (await door.world.get("/symbols")).get_json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/binance/nope", {"code": -1020, "msg": "there is nothing at this path"}),
        ("/binance", {"code": -1020, "msg": "there is nothing at this path"}),
        ("/binance/api/v3/klines", {"code": -1020, "msg": "there is nothing at this path"}),
        ("/binance/wsx/btcusdt@kline_1m", {"code": -1020, "msg": "there is nothing at this path"}),
        ("/udf/config", {"s": "error", "errmsg": "there is nothing at this path"}),
        ("/ws/nope", {"error": {"code": "not_found", "message": "there is nothing at this path"}}),
        ("/candles/BTCUSDT/1m", {"error": {"code": "not_found", "message": "there is nothing at this path"}}),
    ],
)
async def test_a_socket_where_there_is_none_is_not_found(path: str, body: dict[str, Any]) -> None:
    async with Web().socket(path) as socket:
        refusal = await socket.until_refused()
    assert (refusal.status, refusal.json) == (404, body)


async def test_a_question_where_there_is_a_socket_is_told_so() -> None:
    for path in ("/ws/candles", "/ws/candles/BTCUSDT"):
        answer = await Web().get(path)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "WebSocket" in answer.json["error"]["message"]
    answer = await Web().get("/binance/ws/btcusdt@kline_1m")
    assert (answer.status, answer.json["code"]) == (404, -1020)
