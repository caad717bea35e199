"""``/binance/ws`` and ``/binance/stream`` in virtual time: connections from their URL to their end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.doors.binance.session import MISSED, TOO_FAST
from candlesync.errors import CandlesyncError, TooMany, UnknownInterval, UpstreamUnavailable
from candlesync.web.access import AccessSettings
from candlesync.web.base import GOING_DOWN, Closing
from tests.builders import candle, flat, forming, minute, minutes
from tests.doors.binance.bot import Bot, told
from tests.pipe import messages_of
from tests.web.builders import Socket, Web, commit, on_a_port, read_all, upgrade

ETH = Series("ETHUSDT", Interval.M1)
STREAM = "btcusdt@kline_1m"
URL = f"/binance/ws/{STREAM}"
BOT = ("User-Agent", "bot/1")


@asynccontextmanager
async def connection(web: Web, path: str = URL, *headers: tuple[str, str], **others: Any) -> AsyncIterator[Socket]:
    async with web.socket(path, *headers, **others) as socket:
        yield socket
    assert socket.ended.is_set()


async def asked(socket: Socket, method: str, *parameters: object, id_: object = 1) -> Any:
    """The answer to a request."""
    await socket.send({"method": method, "params": list(parameters), "id": id_})
    return await socket.receive()


def closed(first: int, last: int) -> list[tuple[int, bool]]:
    return [(number, True) for number in range(first, last + 1)]


# --- what a URL asks for


@pytest.mark.parametrize("path", [URL, f"{URL}/", f"/binance/ws/0/{STREAM}", "/binance/ws/btcusdt%40kline_1m"])
async def test_a_raw_stream(path: str) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, path) as socket:
        await socket.accepted.wait()
        assert await socket.rest() == []
        commit(topic, candle(minute(10)), forming(minute(11)))
        text = await socket.receive_text()
        assert text.startswith('{"e":"kline","E":1700000700000,"s":"BTCUSDT","k":{"t":1700000640000,"T":1700000699999,')
        assert told([json.loads(text), *await socket.rest()]) == [(10, True), (11, False)]


@pytest.mark.parametrize(
    "path",
    [
        f"/binance/stream?streams={STREAM}/ethusdt@kline_1m",
        f"/binance/stream?streams={STREAM}&streams=ethusdt@kline_1m&timeUnit=millisecond",
        f"/binance/stream/?streams={STREAM}%2Fethusdt%40kline_1m",
        f"/binance/stream/{STREAM}/ethusdt@kline_1m",
    ],
)
async def test_combined_streams(path: str) -> None:
    web = Web()
    bitcoin, ether = web.topic(), web.topic(series=ETH)
    async with connection(web, path) as socket:
        await socket.rest()
        commit(bitcoin, candle(minute(10)))
        commit(ether, candle(minute(10)))
        events = await socket.rest()
        assert [event["stream"] for event in events] == [STREAM, "ethusdt@kline_1m"]
        assert [list(event) for event in events] == [["stream", "data"]] * 2
        assert told([event["data"] for event in events]) == [(10, True), (10, True)]


@pytest.mark.parametrize(
    "path", ["/binance/ws", "/binance/ws/", "/binance/ws/0", "/binance/stream", "/binance/stream/0"]
)
async def test_a_connection_without_a_stream_which_then_subscribes(path: str) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, path) as socket:
        await socket.send(f'{{"method":"SUBSCRIBE","params":["{STREAM}"],"id":1}}')
        assert await socket.receive_text() == '{"result":null,"id":1}'
        commit(topic, candle(minute(10)))
        event = await socket.receive()
        assert ("stream" in event) == ("stream" in path)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (
            "/binance/ws/btcusdt@trade",
            400,
            '{"code":2,"msg":"Invalid request: invalid stream btcusdt@trade: served are <symbol>@kline_<interval>"}',
        ),
        ("/binance/ws/nope@kline_1m", 400, '{"code":-1121,"msg":"Invalid symbol."}'),
        (f"/binance/stream?streams={STREAM}/btcusdt@kline_9m", 400, '{"code":-1120,"msg":"Invalid interval."}'),
        (
            f"{URL}?timeUnit=SECOND",
            400,
            '{"code":-1194,"msg":"Invalid value for time unit; expected either MICROSECOND or MILLISECOND."}',
        ),
    ],
)
async def test_what_a_url_cannot_have_is_refused_before_the_upgrade(path: str, status: int, body: str) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, path) as socket:
        refusal = await socket.until_refused()
    assert (refusal.status, refusal.body.decode()) == (status, body)
    assert refusal.headers["content-type"] == "application/json"
    assert not topic.subscribers


@pytest.mark.parametrize("unit", ["MICROSECOND", "microsecond"])
async def test_who_asks_for_microseconds_gets_every_time_in_them(unit: str) -> None:
    """web-socket-streams.md: "add the parameter timeUnit=MICROSECOND or timeUnit=microsecond in the URL"."""
    web = Web()
    topic, ether = web.topic(), web.topic(series=ETH)
    async with connection(web, f"/binance/stream?streams={STREAM}&timeUnit={unit}") as socket, connection(web) as other:
        await other.accepted.wait()
        assert await asked(socket, "SUBSCRIBE", "ethusdt@kline_1m") == {"result": None, "id": 1}
        for one in (topic, ether):
            commit(one, candle(minute(10)), forming(minute(11)))
        for event in await socket.take(4):
            data = event["data"]
            opens = minute(10) if data["k"]["x"] else minute(11)
            assert (data["k"]["t"], data["k"]["T"]) == (opens * 1000, opens * 1000 + 59_999_999)
            assert opens * 1000 <= data["E"] <= opens * 1000 + 60_000_000
        assert told(await other.take(2)) == [(10, True), (11, False)], "in milliseconds, as ever"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(TooMany("200 symbols", retry_after=7), 429, -1003), (UpstreamUnavailable("no", retry_after=7), 503, -1001)],
)
async def test_what_can_be_had_later_says_when(error: CandlesyncError, status: int, code: int) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.refusals["ETHUSDT"] = error
    async with connection(web, f"{URL}/ethusdt@kline_1m") as socket:
        refusal = await socket.until_refused()
    assert (refusal.status, refusal.json["code"], refusal.headers["retry-after"]) == (status, code, "7")
    assert not topic.subscribers


async def test_a_client_that_leaves_while_its_series_start_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 5
    async with connection(web):
        await trio.sleep(1)
    async with connection(web) as socket:
        await socket.accepted.wait()
        assert topic.subscribers
    assert not topic.subscribers


# --- what a client says


async def test_subscriptions_are_listed_and_ended() -> None:
    web = Web()
    bitcoin, ether = web.topic(), web.topic(series=ETH)
    async with connection(web) as socket:
        assert await asked(socket, "LIST_SUBSCRIPTIONS", id_="a") == {"result": [STREAM], "id": "a"}
        assert await asked(socket, "SUBSCRIBE", "ethusdt@kline_1m", STREAM) == {"result": None, "id": 1}
        assert (await asked(socket, "LIST_SUBSCRIPTIONS"))["result"] == [STREAM, "ethusdt@kline_1m"]
        assert await asked(socket, "UNSUBSCRIBE", STREAM, "ethusdt@kline_5m", id_=None) == {"result": None, "id": None}
        assert (await asked(socket, "LIST_SUBSCRIPTIONS"))["result"] == ["ethusdt@kline_1m"]
        assert not bitcoin.subscribers
        commit(bitcoin, candle(minute(10)))
        commit(ether, candle(minute(10)))
        assert [event["s"] for event in await socket.rest()] == ["ETHUSDT"]


async def test_subscribing_again_changes_nothing_and_after_unsubscribing_begins_anew() -> None:
    web = Web()
    topic = web.topic()
    async with connection(web) as socket:
        await asked(socket, "SUBSCRIBE", STREAM)
        assert len(topic.subscribers) == 1
        await asked(socket, "UNSUBSCRIBE", STREAM)
        commit(topic, candle(minute(10)))
        await asked(socket, "SUBSCRIBE", STREAM)
        commit(topic, candle(minute(11)))
        assert told(await socket.rest()) == [(11, True)]


async def test_the_property_combined() -> None:
    web = Web()
    topic = web.topic()
    async with connection(web) as socket:
        assert (await asked(socket, "GET_PROPERTY", "combined"))["result"] is False
        assert await asked(socket, "SET_PROPERTY", "combined", True) == {"result": None, "id": 1}
        assert (await asked(socket, "GET_PROPERTY", "combined"))["result"] is True
        commit(topic, candle(minute(10)))
        assert list(await socket.receive()) == ["stream", "data"]
        await asked(socket, "SET_PROPERTY", "combined", False)
        commit(topic, candle(minute(11)))
        assert list(await socket.receive()) == ["e", "E", "s", "k"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (None, -1121, "Invalid symbol."),
        (TooMany("200 symbols"), -1003, "Too many requests; 200 symbols."),
        (
            UpstreamUnavailable("asked in vain"),
            -1001,
            "Internal error; unable to process your request. Please try again. (asked in vain)",
        ),
        (UnknownInterval("this venue has no 1s"), -1120, "Invalid interval."),
    ],
)
async def test_a_subscription_that_is_refused_is_refused_whole(
    error: CandlesyncError | None, code: int, words: str
) -> None:
    web = Web()
    topic = web.topic()
    if error is not None:
        web.supervisor.refusals["ETHUSDT"] = error
    async with connection(web, "/binance/ws") as socket:
        answer = await asked(socket, "SUBSCRIBE", STREAM, "ethusdt@kline_1m", id_=4)
        assert answer == {"error": {"code": code, "msg": words}, "id": 4}
        assert (await asked(socket, "LIST_SUBSCRIPTIONS"))["result"] == []
        assert not topic.subscribers


async def test_a_socket_has_1024_streams_at_most(autojump_clock: MockClock) -> None:
    web = Web()
    for number in range(1025):
        web.topic(minutes(0, 0), series=Series(f"A{number}", Interval.M1))
    names = [f"a{number}@kline_1m" for number in range(1025)]
    async with connection(web, "/binance/ws") as socket:
        too_many = {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1}
        assert await asked(socket, "SUBSCRIBE", *names) == too_many
        assert await asked(socket, "SUBSCRIBE", *names[1:]) == {"result": None, "id": 1}
        assert await asked(socket, "SUBSCRIBE", names[0]) == too_many
        await trio.sleep(5)
        assert await asked(socket, "SUBSCRIBE", names[1]) == {"result": None, "id": 1}


async def test_requests_are_done_in_order_while_a_series_starts(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 9
    async with connection(web, "/binance/ws") as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        for number in range(2, 40):  # at the pace that is allowed, and never taken for faster
            await trio.sleep(0.2)
            await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": number})
        await socket.send({"method": "UNSUBSCRIBE", "params": [STREAM], "id": 40})
        await trio.sleep(2)
        answers = await socket.rest()
    assert [answer["id"] for answer in answers] == list(range(1, 41))
    assert answers[1]["result"] == [STREAM]
    assert not topic.subscribers


async def test_a_close_between_the_subscription_and_its_answer_is_not_lost() -> None:
    web = Web()
    topic = web.topic([*minutes(0, 9), forming(minute(10))])
    async with connection(web, "/binance/ws", capacity=0) as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        await wait_all_tasks_blocked()
        commit(topic, candle(minute(10)), candle(minute(11)))
        assert await socket.receive() == {"result": None, "id": 1}
        assert told(await socket.rest()) == closed(10, 11)


async def test_garbage_is_answered_and_the_socket_stays_open() -> None:
    web = Web()
    web.topic()
    async with connection(web) as socket:
        await socket.send("what")
        assert (await socket.receive())["error"]["code"] == 3
        await socket.send("[]")
        assert (await socket.receive())["error"]["code"] == 2
        assert (await asked(socket, "LIST_SUBSCRIPTIONS"))["result"] == [STREAM]


async def test_five_messages_a_second_are_allowed_and_more_are_the_end(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    async with connection(web) as socket:
        for _ in range(20):
            for _ in range(5):
                await asked(socket, "LIST_SUBSCRIPTIONS")
            await trio.sleep(1)
        for _ in range(11):
            await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert await socket.until_closed() == (TOO_FAST.code, "Too many requests")
    assert web.sockets.messages_refused == 1


async def test_much_that_waits_is_the_end_too(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    web.supervisor.delay = 9
    async with connection(web, "/binance/ws") as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        for _ in range(3):
            await socket.send({"method": "SUBSCRIBE", "params": ["x" * 60_000], "id": 1})
        assert (await socket.until_closed())[0] == TOO_FAST.code


async def test_a_binary_message_is_the_end() -> None:
    web = Web()
    web.topic()
    async with connection(web) as socket:
        await socket.send(b"{}")
        assert await socket.until_closed() == (1003, "binary_message")


# --- closes, once and in order


async def test_a_slow_client_misses_updates_and_no_close() -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, capacity=0) as socket:
        await wait_all_tasks_blocked()
        for number in range(10, 20):
            for trades in range(1, 5):
                commit(topic, forming(minute(number), trades=trades))
                await wait_all_tasks_blocked()
            commit(topic, candle(minute(number)))
        commit(topic, forming(minute(20)))
        events = [event for event in told(await socket.rest()) if event != (10, False)]
        assert events == [*closed(10, 19), (20, False)]


async def test_what_binance_missed_comes_first_and_in_order() -> None:
    web = Web()
    topic = web.topic()
    async with connection(web) as socket:
        await socket.rest()
        topic.set_state(State.STALE)
        topic.set_state(State.SYNCING)
        assert await socket.rest() == []
        fill = flat(minute(10), "37009.00000000")
        commit(topic, fill, candle(minute(11)), candle(minute(12)), forming(minute(13)))
        topic.set_state(State.LIVE)
        commit(topic, candle(minute(13)))
        events = [event for event in told(await socket.rest()) if event[1]]
        assert events == closed(11, 13)


async def test_a_client_slower_than_the_history_is_closed_rather_than_served_in_part(
    autojump_clock: MockClock,
) -> None:
    web = Web(history=10)
    topic = web.topic()
    async with connection(web, URL, BOT, capacity=0) as socket:
        await wait_all_tasks_blocked()
        for number in range(10, 12):
            commit(topic, candle(minute(number)))
            await wait_all_tasks_blocked()
        for number in range(12, 40):
            commit(topic, candle(minute(number)))
        assert told([await socket.receive()]) == closed(10, 10)
        assert await socket.until_closed() == (MISSED.code, MISSED.reason)
        assert len(MISSED.reason.encode()) <= 123  # a control frame's
    # Who comes back was told: it begins anew.
    async with connection(web, URL, BOT) as socket:
        assert await socket.rest() == []
        commit(topic, candle(minute(40)))
        assert told(await socket.rest()) == closed(40, 40)


# --- clients that come back


@pytest.mark.parametrize("path", [URL, "/binance/ws/0", "/binance/ws"])
async def test_a_client_that_comes_back_goes_on_where_it_stopped(path: str, autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, path, BOT, ("X-Request-Id", "1")) as socket:
        await asked(socket, "SUBSCRIBE", STREAM)
        commit(topic, candle(minute(10)))
        assert told(await socket.rest()) == closed(10, 10)
        await trio.sleep(1)
    for number in (11, 12):
        commit(topic, candle(minute(number)))
    await trio.sleep(299)
    async with connection(web, path, BOT, ("X-Request-Id", "2")) as socket:
        await socket.send({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
        events = [message for message in await socket.rest() if "result" not in message]
        assert told(events) == closed(11, 12)
        commit(topic, candle(minute(13)))
        assert told(await socket.rest()) == closed(13, 13)


@pytest.mark.parametrize("other", ["program", "address", "url", "stream", "late", "taken", "unsubscribed"])
async def test_nobody_else_gets_old_closes(other: str, autojump_clock: MockClock) -> None:
    web = Web(access=AccessSettings(unlimited=()))
    topic = web.topic()
    async with connection(web, URL, BOT) as socket:
        await socket.rest()
        if other == "unsubscribed":
            await asked(socket, "UNSUBSCRIBE", STREAM)
    fives = Series("BTCUSDT", Interval.M5)
    web.topic([candle(fives.interval.floor(minute(0)), interval=fives.interval)], series=fives)
    commit(topic, candle(minute(10)))
    if other == "late":
        await trio.sleep(301)
    if other == "taken":
        async with connection(web, URL, BOT) as first:
            assert told(await first.rest()) == closed(10, 10)
            async with connection(web, URL, BOT) as socket:
                assert await socket.rest() == []
        return
    path = {"stream": "/binance/ws/btcusdt@kline_5m", "url": f"/binance/ws/0/{STREAM}"}.get(other, URL)
    agent = ("User-Agent", "another") if other == "program" else BOT
    client = "192.0.2.7" if other == "address" else "127.0.0.1"
    async with connection(web, path, agent, client=client) as socket:
        assert await socket.rest() == []


async def test_a_client_cut_off_in_the_middle_of_a_catch_up_gets_the_rest_of_it(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, URL, BOT, capacity=0) as socket:
        await wait_all_tasks_blocked()
        commit(topic, *(candle(minute(number)) for number in range(10, 20)))
        await trio.sleep(2)
        seen = told([await socket.receive() for _ in range(4)])
    async with connection(web, URL, BOT) as socket:
        seen += told(await socket.rest())
    assert seen == closed(10, 19)


async def test_a_connection_that_has_hardly_begun_counts_as_none(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    async with connection(web, URL, BOT) as socket:
        await socket.rest()
    commit(topic, candle(minute(10)))
    for seconds, expected in ((0.2, closed(10, 10)), (0.3, closed(10, 10)), (0.3, [])):
        async with connection(web, URL, BOT) as socket:
            assert told(await socket.rest()) == expected
            await trio.sleep(seconds)


async def test_a_server_that_goes_down_says_so_and_takes_nobody_new() -> None:
    web = Web()
    topic = web.topic()
    async with connection(web) as socket:
        await socket.accepted.wait()
        await wait_all_tasks_blocked()
        web.stopping.set()
        assert await socket.until_closed() == (GOING_DOWN.code, GOING_DOWN.reason)
    assert not topic.subscribers
    async with connection(web) as socket:
        refusal = await socket.until_refused()
    assert (refusal.status, refusal.json["code"]) == (503, -1001)


# --- on a connection that takes frames


async def test_a_line_that_is_gone_took_nothing_of_what_was_on_its_way(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    bot = Bot(web)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await trio.sleep(1)
        bot.pipe.room = 5_000
        commit(topic, *(candle(minute(number)) for number in range(10, 110)))
        await wait_all_tasks_blocked()
        bot.pipe.is_gone = True
        bot.pipe.widen(inf)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    bot.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    # A part of the batch may have come, and comes again: what is sent next depends on nothing that may be lost.
    assert bot.got == closed(10, 109)


async def test_a_line_is_given_batches_each_of_many_closes(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    bot = Bot(web)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await wait_all_tasks_blocked()
        commit(topic, *(candle(minute(number)) for number in range(10, 510)), forming(minute(510)))
        await wait_all_tasks_blocked()
        assert bot.got == [*closed(10, 509), (510, False)]
        assert bot.session.sent == 501
        nursery.cancel_scope.cancel()


async def test_a_client_that_has_everything_is_written_to_in_the_commit(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    bot = Bot(web)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await wait_all_tasks_blocked()
        commit(topic, forming(minute(10), trades=1))
        commit(topic, forming(minute(10), trades=2))
        commit(topic, candle(minute(10)))
        assert bot.got == [(10, False), (10, False), (10, True)]  # no task has run
        commit(topic, flat(minute(11), "37012.31000000"), candle(minute(12)))
        commit(topic, candle(minute(10), "2.00000000"), candle(minute(13)))  # an older one too: this is pulled
        await wait_all_tasks_blocked()
        bot.pipe.room = 100  # a part of one
        commit(topic, forming(minute(14), trades=1))
        commit(topic, forming(minute(14), trades=2))
        commit(topic, candle(minute(14)))
        bot.pipe.widen(inf)
        await wait_all_tasks_blocked()
        bot.pipe.room = 0
        commit(topic, forming(minute(15), trades=1))
        bot.pipe.widen(inf)
        await wait_all_tasks_blocked()
        assert bot.got[3:] == [(12, True), (13, True), (14, False), (14, True), (15, False)]
        await bot.to_session.send('{"method":"UNSUBSCRIBE","params":["btcusdt@kline_1m"],"id":1}')
        await wait_all_tasks_blocked()
        commit(topic, candle(minute(15)))
        assert messages_of(bot.pipe.got)[0][-1] == b'{"result":null,"id":1}'
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("turns", range(12))
async def test_whenever_a_commit_comes_the_writer_sees_to_it(turns: int) -> None:
    web = Web()
    topic = web.topic([*minutes(0, 9), forming(minute(10))])
    bot = Bot(web)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        while not topic.subscribers:
            await trio.lowlevel.checkpoint()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        bot.pipe.room = 100 if bot.pipe.got else inf  # what is parked is not taken whole
        commit(topic, candle(minute(10)))
        bot.pipe.widen(inf)
        await wait_all_tasks_blocked()
        assert bot.got[-1] == (10, True)
        nursery.cancel_scope.cancel()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("form"), st.integers(1, 100)),
        st.tuples(st.just("close"), st.integers(1, 30)),
        st.tuples(st.just("correct"), st.integers(1, 5)),
        st.tuples(st.just("state"), st.sampled_from(State)),
        st.tuples(st.just("room"), st.sampled_from([0, 1, 100, 400, 1000, inf])),
        st.tuples(st.just("wait"), st.just(0)),
        st.tuples(st.just("break"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_every_close_comes_once_and_in_order_through_every_break(steps: list[tuple[str, Any]]) -> None:
    """A connection that takes what it likes and when it likes, ends in the middle of it, and comes back."""
    trio.run(partial(_go, steps), clock=MockClock(autojump_threshold=0))


async def _go(steps: list[tuple[str, Any]]) -> None:
    web = Web()
    topic = web.topic()
    bot = Bot(web)
    got: list[tuple[int, bool]] = []
    number = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await trio.sleep(1)
        for kind, value in [*steps, ("room", inf), ("break", 0), ("wait", 0)]:
            match kind:
                case "form":
                    commit(topic, forming(minute(number), trades=value))
                case "close":
                    commit(topic, *(candle(minute(number + step)) for step in range(value)))
                    number += value
                case "correct":
                    tail = topic.replica.newest(value)[0].candle
                    commit(topic, msgspec.structs.replace(tail, close=f"{value}.00000000"))
                case "state":
                    topic.set_state(value)
                case "room":
                    bot.pipe.widen(value or (-bot.pipe.room if bot.pipe.room < inf else 0))
                case "wait":
                    await trio.sleep(1)
                case "break":
                    await trio.sleep(1)
                    bot.session.close(Closing(1000, ""))
                    bot.pipe.widen(inf)  # what was begun goes out, or there is no telling what of it came
                    await trio.sleep(1)
                    assert bot.closing is not None
                    got += bot.got
                    bot.connect()
                    nursery.start_soon(bot.run)
                    await trio.sleep(1)
        got += bot.got
        nursery.cancel_scope.cancel()
    assert [event for event in got if event[1]] == closed(10, number - 1)
    assert got == sorted(got)


async def test_a_client_that_is_always_behind_is_too_slow_and_goes_on_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    web = Web()
    topic = web.topic()
    bot = Bot(web)
    number = 10
    seen: list[tuple[int, bool]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await wait_all_tasks_blocked()
        bot.pipe.room = 0
        while bot.closing is None and number < 500:
            commit(topic, candle(minute(number)))
            number += 1
            await trio.sleep(1)
            bot.pipe.widen(300)
            await wait_all_tasks_blocked()
            bot.pipe.room = 0
        assert bot.closing == Closing(1013, "too_slow")
        seen += bot.got
        bot.connect()
        nursery.start_soon(bot.run)
        await wait_all_tasks_blocked()
        seen += bot.got
        nursery.cancel_scope.cancel()
    assert seen == closed(10, number - 1)


# --- under the real server


async def test_clients_of_the_real_server() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port:
        refused = await port.connect()
        await refused.send_all(upgrade("/binance/ws/btcusdt@trade"))
        answer = await read_all(refused, seconds=10)
        await refused.aclose()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'{"code":2,"msg":"Invalid request: invalid stream btcusdt@trade: ' in answer
        async with port.websocket("/binance/ws/0") as client:
            await client.send_message('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":1}')
            assert json.loads(await client.get_message()) == {"result": None, "id": 1}
            for number in range(10, 200):
                commit(topic, forming(minute(number)))
                commit(topic, candle(minute(number)))
            commit(topic, *(candle(minute(number)) for number in range(200, 400)))
            got: list[tuple[int, bool]] = []
            while (399, True) not in got:
                got += told([json.loads(await client.get_message())])
            assert [event for event in got if event[1]] == closed(10, 399)
