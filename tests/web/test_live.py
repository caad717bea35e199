"""``/ws/candles/{symbol}`` in virtual time: one candle a message, and how a socket begins and ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.errors import CandlesyncError, LocationRefused, RateLimited, TooMany, UpstreamUnavailable
from tests.builders import candle, forming, minute, minutes
from tests.web.builders import LIFE, Socket, Web, commit

BTC_5M = Series("BTCUSDT", Interval.M5)


@asynccontextmanager
async def one(web: Web, query: str = "", *, symbol: str = "BTCUSDT", capacity: float = inf) -> AsyncIterator[Socket]:
    async with web.socket(f"/ws/candles/{symbol}{query}", capacity=capacity) as socket:
        yield socket
    assert socket.ended.is_set()


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    """The minutes of the candles."""
    return [(message["time"] * 1000 - minute(0)) // 60_000 for message in messages]


# --- first the replay, then live


async def test_the_last_five_then_live_byte_for_byte() -> None:
    web = Web()
    topic = web.topic()
    async with one(web) as socket:
        replay = [await socket.receive_text() for _ in range(5)]
        assert replay[0] == (
            '{"symbol":"BTCUSDT","interval":"1m","time":1700000340,"open":37000.00000000,"high":37100.00000000'
            ',"low":36900.00000000,"close":37005.00000000,"volume":10.50000000,"closed":true,"rev":1}'
        )
        assert replay[4] == (
            '{"symbol":"BTCUSDT","interval":"1m","time":1700000580,"open":37000.00000000,"high":37100.00000000'
            ',"low":36900.00000000,"close":37009.00000000,"volume":10.50000000,"closed":true,"rev":1'
            ',"position":"life0-1"}'
        )
        assert await socket.rest() == []
        commit(topic, forming(minute(10), "37010.00000000", trades=3))
        assert await socket.receive_text() == (
            '{"symbol":"BTCUSDT","interval":"1m","time":1700000640,"open":37000.00000000,"high":37100.00000000'
            ',"low":36900.00000000,"close":37010.00000000,"volume":3.50000000,"closed":false,"rev":2'
            ',"position":"life0-2"}'
        )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [5, 6, 7, 8, 9]),
        ("?interval=1m", [5, 6, 7, 8, 9]),
        ("?replay=0", []),
        ("?replay=1", [9]),
        ("?replay=1000", list(range(10))),
        (f"?since={minute(7) // 1000}", [7, 8, 9]),
        (f"?since={minute(11) // 1000}", []),
        ("?position=life0-1", []),
        ("?unknown=1&replay=1", [9]),
    ],
)
async def test_each_start(query: str, expected: list[int]) -> None:
    web = Web()
    web.topic()
    async with one(web, query) as socket:
        assert numbers(await socket.rest()) == expected
        assert not socket.closed.is_set()


async def test_the_symbol_in_any_case_and_another_interval() -> None:
    web = Web()
    web.topic([candle(BTC_5M.interval.floor(minute(0)), interval=BTC_5M.interval)], series=BTC_5M)
    async with one(web, "?interval=5m", symbol="btcusdt") as socket:
        message = await socket.receive()
        assert (message["symbol"], message["interval"]) == ("BTCUSDT", "5m")


async def test_a_chart_that_loads_rest_and_then_follows_with_no_parameter_misses_nothing() -> None:
    web = Web()
    topic = web.topic()
    loaded = (await web.get("/candles/BTCUSDT/1m")).json
    commit(topic, candle(minute(10)))
    commit(topic, forming(minute(11)))
    async with one(web) as socket:
        shown = {message["time"]: message for message in loaded}
        shown |= {message["time"]: message for message in await socket.rest()}
    assert [message["time"] for message in shown.values()] == [minute(number) // 1000 for number in range(12)]


async def test_a_client_that_resumes_with_the_position_from_rest_gets_exactly_what_it_missed() -> None:
    web = Web()
    topic = web.topic()
    position = (await web.get("/candles/BTCUSDT/1m")).headers["Candlesync-Position"]
    commit(topic, forming(minute(10), trades=1))
    commit(topic, candle(minute(3), "1.00000000"))
    commit(topic, candle(minute(10), trades=2))
    async with one(web, f"?position={position}") as socket:
        missed = await socket.rest()
        assert [(number, message["rev"]) for number, message in zip(numbers(missed), missed, strict=True)] == [
            (3, 3),
            (10, 4),
        ]
        assert [message.get("position") for message in missed] == [None, f"{LIFE}-4"]


async def test_a_position_from_the_socket_resumes_there() -> None:
    web = Web()
    topic = web.topic()
    async with one(web) as socket:
        position = (await socket.take(5))[-1]["position"]
    commit(topic, candle(minute(10)))
    async with one(web, f"?position={position}") as socket:
        assert numbers(await socket.rest()) == [10]


async def test_a_position_ahead_of_this_node_is_waited_for(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    async with one(web, "?position=life0-2") as socket:
        await trio.sleep(4)
        assert not socket.accepted.is_set()
        commit(topic, candle(minute(10)))
        commit(topic, candle(minute(11)))
        assert numbers(await socket.rest()) == [11]


async def test_a_position_ahead_of_this_node_is_too_old_after_5_seconds(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    async with one(web, "?position=life0-2") as socket:
        assert await socket.until_closed() == (4410, "too_old")
        assert trio.current_time() == 5


async def test_rest_and_websocket_send_the_same_objects() -> None:
    web = Web()
    topic = web.topic()
    commit(topic, candle(minute(4), "1.00000000"), forming(minute(10)))
    async with one(web, "?replay=1000") as socket:
        messages = await socket.rest()
    position = messages[-1].pop("position")
    answer = await web.get("/candles/BTCUSDT/1m")
    assert messages == answer.json
    assert position == answer.headers["Candlesync-Position"]


# --- accepted, and closed at once with the reason, because browsers hide the status of a refused upgrade


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("NOPE", 4404, "unknown_symbol"),
        ("b%C4%B1tcoin", 4404, "unknown_symbol"),
        ("BTC%0D%0AX:y", 4404, "unknown_symbol"),
        ("x" * 5000, 4404, "unknown_symbol"),
        ("BTCUSDT?interval=2m", 4400, "bad_interval"),
        ("BTCUSDT?interval=1H", 4400, "bad_interval"),
        ("BTCUSDT?interval=", 4400, "bad_interval"),
        ("BTCUSDT?interval=1m&interval=1m", 4400, "bad_parameter"),
        ("BTCUSDT?replay=1001", 4400, "bad_parameter"),
        ("BTCUSDT?replay=-1", 4400, "bad_parameter"),
        ("BTCUSDT?replay=abc", 4400, "bad_parameter"),
        (f"BTCUSDT?since={minute(0)}", 4400, "bad_parameter"),
        ("BTCUSDT?since=now", 4400, "bad_parameter"),
        ("BTCUSDT?position=nonsense", 4400, "bad_parameter"),
        ("BTCUSDT?position=", 4400, "bad_parameter"),
        ("BTCUSDT?replay=5&since=1700000040", 4400, "bad_parameter"),
        ("BTCUSDT?replay=5&position=life0-1", 4400, "bad_parameter"),
        ("BTCUSDT?since=1700000040&position=life0-1", 4400, "bad_parameter"),
        ("BTCUSDT?replay=5&replay=5", 4400, "bad_parameter"),
        ("BTCUSDT?position=other-1", 4410, "too_old"),
        ("BTCUSDT?since=1600000000", 4410, "too_old"),
        ("BTCUSDT?since=0", 4410, "too_old"),
    ],
)
async def test_what_cannot_be_had(path: str, code: int, reason: str) -> None:
    web = Web()
    topic = web.topic()
    async with web.socket(f"/ws/candles/{path}") as socket, one(web, "?replay=0") as other:
        assert await socket.until_closed() == (code, reason)
        assert socket.accepted.is_set()
        assert await socket.rest() == [], "nothing in part"
        assert not other.closed.is_set()
    assert not topic.subscribers


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (TooMany("200 symbols"), 429, "too_many", "60"),
        (UpstreamUnavailable("no candles yet", retry_after=5), 503, "upstream_unavailable", "5"),
        (RateLimited("banned", retry_after=100), 503, "upstream_unavailable", "100"),
        (LocationRefused("not from here"), 503, "upstream_unavailable", "5"),
    ],
)
async def test_limits_and_503_are_refused_before_the_upgrade(
    error: CandlesyncError, status: int, code: str, retry_after: str
) -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = error
    async with one(web) as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (status, code, retry_after)
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/ws", "/ws/nope", "/ws/candles/BTCUSDT/1m", "/ws/candles/BTC%2FUSDT", "/nope"])
async def test_an_unknown_path_is_not_found(path: str) -> None:
    web = Web()
    web.topic()
    async with web.socket(path) as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code) == (404, "not_found")


async def test_an_http_path_is_no_websocket() -> None:
    web = Web()
    async with web.socket("/health") as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code) == (404, "not_found")


# --- open


async def test_a_ping_is_answered_and_anything_else_is_an_error_on_an_open_socket() -> None:
    web = Web()
    topic = web.topic()
    async with one(web, "?replay=0") as socket:
        for message in ({"op": "subscribe", "symbol": "BTCUSDT"}, {"op": "dance"}, "no JSON", "[]", "1" * 5000, ""):
            await socket.send(message)
            error = await socket.receive()
            assert (error["op"], error["code"]) == ("error", "bad_message")
        await socket.send({"op": "ping"})
        assert await socket.receive() == {"op": "pong"}
        commit(topic, candle(minute(10)))
        assert numbers([await socket.receive()]) == [10]


async def test_an_id_comes_back_here_too() -> None:
    web = Web()
    web.topic()
    async with one(web, "?replay=0") as socket:
        await socket.send({"op": "ping", "id": 7})
        assert await socket.receive() == {"op": "pong", "id": 7}
        await socket.send({"op": "dance", "id": 8})
        assert (await socket.receive())["id"] == 8


@pytest.mark.parametrize("data", [b"\x00", b"", b'{"op":"ping"}'])
async def test_a_binary_message_closes_with_1003(data: bytes) -> None:
    web = Web()
    web.topic()
    async with one(web, "?replay=0") as socket:
        await socket.send(data)
        assert (await socket.until_closed())[0] == 1003


async def test_a_state_is_no_message_here() -> None:
    web = Web()
    topic = web.topic()
    async with one(web, "?replay=0") as socket:
        await socket.rest()
        topic.set_state(State.STALE)
        topic.set_state(State.LIVE)
        assert await socket.rest() == []


async def test_a_slow_client_skips_forming_updates_but_no_candle() -> None:
    web = Web()
    topic = web.topic()
    async with one(web, "?replay=0", capacity=0) as socket:
        await wait_all_tasks_blocked()
        for number in range(10, 15):
            for trades in range(1, 20):
                commit(topic, forming(minute(number), trades=trades))
                await wait_all_tasks_blocked()
            commit(topic, candle(minute(number), trades=20))
            await wait_all_tasks_blocked()
        messages = await socket.take(6)
        assert [message["volume"] for message in messages] == [1.5] + [20.5] * 5
        assert numbers(messages) == [10, 10, 11, 12, 13, 14]
        assert await socket.rest() == []


async def test_a_client_that_falls_behind_the_history_is_closed_with_4410() -> None:
    web = Web(history=10)
    topic = web.topic()
    async with one(web, "?replay=0", capacity=0) as socket, one(web, "?replay=0") as quick:
        await wait_all_tasks_blocked()
        for number in range(10, 30):
            commit(topic, candle(minute(number)))
            await wait_all_tasks_blocked()
        assert numbers([await socket.receive()]) == [10]
        assert await socket.until_closed() == (4410, "too_old")
        assert await socket.rest() == []
        assert numbers(await quick.rest()) == list(range(10, 30))


@pytest.mark.parametrize("life", [None, "life1"])
async def test_a_series_that_begins_again_closes_its_clients_with_4410(life: str | None) -> None:
    web = Web()
    topic = web.topic()
    async with one(web) as socket:
        await socket.take(5)
        commit(topic, *minutes(5000, 5005), begins=True, life=life)
        assert await socket.until_closed() == (4410, "too_old")
        assert await socket.rest() == []


# --- the end


async def test_a_client_that_leaves_leaves_nothing() -> None:
    web = Web()
    topic = web.topic()
    async with one(web) as socket:
        await socket.take(5)
        assert len(topic.subscribers) == len(web.sockets.open) == 1
    assert not topic.subscribers
    assert not web.sockets.open
    assert web.sockets.messages_sent == 5


async def test_a_client_that_leaves_while_it_is_sent_something_leaves_nothing() -> None:
    web = Web()
    topic = web.topic()
    async with one(web, "?replay=5", capacity=0) as socket:
        await socket.receive()
    assert not topic.subscribers
    assert not web.sockets.open


async def test_a_client_that_has_said_much_before_it_leaves_leaves_nothing() -> None:
    """Quart keeps some messages for a handler; more of them than it has room for must not hide the end."""
    web = Web()
    topic = web.topic()
    async with one(web, "?replay=0") as socket:
        for _ in range(100):
            await socket.send({"op": "ping"})
    assert not topic.subscribers


async def test_a_client_that_vanishes_while_its_series_starts_leaves_nothing(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 5
    async with one(web) as socket:
        await trio.sleep(1)
        assert not socket.accepted.is_set()
    await trio.sleep(10)
    assert not topic.subscribers
    assert not web.sockets.open


async def test_going_down_closes_with_1012(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    async with one(web) as socket, one(web, "?replay=0") as idle:
        await socket.take(5)
        await idle.rest()
        web.stopping.set()
        assert await socket.until_closed() == await idle.until_closed() == (1012, "going_down")
        await wait_all_tasks_blocked()
        assert not topic.subscribers


async def test_going_down_while_a_series_starts(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    web.supervisor.delay = 3
    async with one(web) as socket:
        await trio.sleep(1)
        web.stopping.set()
        assert await socket.until_closed() == (1012, "going_down")


async def test_a_server_that_goes_down_takes_no_new_sockets() -> None:
    web = Web()
    web.topic()
    web.stopping.set()
    async with one(web) as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "going_down", "1")
    assert json.loads(answer.body)["error"]["message"]
