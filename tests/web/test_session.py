"""``/ws/candles``: many series on one socket, subscribed by message."""

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
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.sync import State
from candlesync.errors import TooMany, UpstreamUnavailable
from candlesync.hub import Subscriber
from tests.builders import T0, candle, forming, minute, minutes
from tests.web.builders import LIFE, Socket, Web, commit

ETH = Series("ETHUSDT", Interval.M1)
SUBSCRIBE = {"op": "subscribe", "symbol": "BTCUSDT", "interval": "1m"}


@asynccontextmanager
async def many(web: Web, *, capacity: float = inf) -> AsyncIterator[Socket]:
    async with web.socket("/ws/candles", capacity=capacity) as socket:
        yield socket
    assert socket.ended.is_set()


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    """The minutes of the candles among the messages."""
    return [(message["time"] * 1000 - minute(0)) // 60_000 for message in messages if "time" in message]


async def error_after(socket: Socket, message: object) -> dict[str, Any]:
    """The error that answers a message. The socket is open after it, and still answers."""
    await socket.send(message)
    error: dict[str, Any] = await socket.receive()
    assert error["op"] == "error"
    assert error["message"]
    await socket.send({"op": "ping"})
    assert await socket.receive() == {"op": "pong"}
    return error


# --- subscribe


async def test_a_subscription_is_answered_then_the_state_then_the_replay_then_live() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "id": 1})
        assert await socket.receive() == {"op": "subscribed", "symbol": "BTCUSDT", "interval": "1m", "id": 1}
        assert await socket.receive() == {"op": "state", "symbol": "BTCUSDT", "interval": "1m", "state": "live"}
        replay = await socket.take(5)
        assert numbers(replay) == [5, 6, 7, 8, 9]
        assert ["position" in message for message in replay] == [False] * 4 + [True]
        for revision in (2, 3):
            commit(topic, forming(minute(10), trades=revision))
            live = await socket.receive()
            assert (live["rev"], live["position"]) == (revision, f"{LIFE}-{revision}")


async def test_the_bytes_of_the_answers() -> None:
    web = Web()
    web.topic(state=State.SYNCING)
    async with many(web) as socket:
        await socket.send('{"id":"a","interval":"1m","replay":0,"symbol":"btcusdt","op":"subscribe"}')
        assert await socket.receive_text() == '{"op":"subscribed","symbol":"BTCUSDT","interval":"1m","id":"a"}'
        assert await socket.receive_text() == '{"op":"state","symbol":"BTCUSDT","interval":"1m","state":"syncing"}'
        await socket.send('{"op":"ping","id":7}')
        assert await socket.receive_text() == '{"op":"pong","id":7}'
        await socket.send('{"op":"unsubscribe","symbol":"BTCUSDT","interval":"1m","id":8}')
        assert await socket.receive_text() == '{"op":"unsubscribed","symbol":"BTCUSDT","interval":"1m","id":8}'
        await socket.send('{"op":"subscribe","symbol":"NOPE","interval":"1m","id":9}')
        error = await socket.receive_text()
        assert error.startswith('{"op":"error","code":"unknown_symbol","message":"')
        assert error.endswith('","symbol":"NOPE","interval":"1m","id":9}')


async def test_symbols_in_any_case_and_one_minute_by_default() -> None:
    web = Web()
    web.topic()
    async with many(web) as socket:
        await socket.send({"op": "subscribe", "symbol": "btcUsdt"})
        assert await socket.receive() == {"op": "subscribed", "symbol": "BTCUSDT", "interval": "1m"}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"replay": 0}, []),
        ({"replay": 2}, [8, 9]),
        ({"replay": 1000}, list(range(10))),
        ({"since": minute(7) // 1000}, [7, 8, 9]),
        ({"since": minute(11) // 1000}, []),
        ({"position": f"{LIFE}-1"}, [10]),
        ({"position": None, "since": None, "replay": None}, [6, 7, 8, 9, 10]),
    ],
)
async def test_each_start(start: dict[str, object], expected: list[int]) -> None:
    web = Web()
    topic = web.topic()
    if "position" in start:
        commit(topic, candle(minute(10)))
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, **start})
        await socket.take(2)
        assert numbers(await socket.rest()) == expected


async def test_many_series_on_one_socket_each_with_its_own_position() -> None:
    web = Web()
    bitcoin = web.topic()
    ether = web.topic(minutes(0, 3), series=ETH)
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 1})
        await socket.send({**SUBSCRIBE, "symbol": "ETHUSDT", "replay": 1})
        await socket.rest()
        commit(ether, candle(minute(4)))
        commit(bitcoin, candle(minute(10)))
        commit(ether, candle(minute(5)))
        messages = await socket.rest()
        positions = {
            symbol: [message.get("position") for message in messages if message["symbol"] == symbol]
            for symbol in ("BTCUSDT", "ETHUSDT")
        }
        assert positions == {"BTCUSDT": [f"{LIFE}-2"], "ETHUSDT": [None, f"{LIFE}-3"]}


async def test_again_for_the_same_series_starts_it_anew() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "id": 1})
        await socket.rest()
        await socket.send({**SUBSCRIBE, "replay": 2, "id": 2})
        messages = await socket.rest()
        assert [message["op"] for message in messages[:2]] == ["subscribed", "state"]
        assert messages[0]["id"] == 2
        assert numbers(messages[2:]) == [8, 9]
        commit(topic, candle(minute(10)))
        assert numbers(await socket.rest()) == [10], "and is not followed twice"
        assert len(topic.subscribers) == 1


async def test_again_while_it_starts_counts_once(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 3
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 1, "id": 1})
        await trio.sleep(1)
        await socket.send({**SUBSCRIBE, "replay": 2, "id": 2})
        await trio.sleep(5)
        messages = await socket.rest()
        # Each request has its answer, and there is one subscription: the newer one's.
        assert sorted(message["id"] for message in messages if message.get("op") == "subscribed") == [1, 2]
        assert numbers(messages) == [8, 9]
        assert len(topic.subscribers) == 1


async def test_what_is_committed_while_a_series_starts_is_not_lost(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 3
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "position": f"{LIFE}-1"})
        for number in range(10, 20):
            commit(topic, candle(minute(number)))
            await trio.sleep(0.5)
        assert numbers(await socket.rest()) == list(range(10, 20))


async def test_a_series_is_held_from_the_moment_that_it_has_started() -> None:
    """A client that is slow to take the answer must not find that the series was let go meanwhile."""
    web = Web()
    topic = web.topic()
    async with many(web, capacity=0) as socket:
        await socket.send(SUBSCRIBE)
        await wait_all_tasks_blocked()
        assert topic.idle_since is None
        await socket.send({"op": "unsubscribe", "symbol": "BTCUSDT"})
        await socket.rest()
        await wait_all_tasks_blocked()
        assert not topic.subscribers


async def test_other_messages_do_not_wait_for_a_series_to_start(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    web.supervisor.delay = 5
    async with many(web) as socket:
        await socket.send(SUBSCRIBE)
        await socket.send({"op": "ping", "id": 1})
        assert await socket.receive() == {"op": "pong", "id": 1}
        assert trio.current_time() == 0
        assert (await socket.receive())["op"] == "subscribed"
        assert trio.current_time() == 5


# --- unsubscribe


async def test_nothing_comes_after_unsubscribe() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 0})
        await socket.rest()
        await socket.send({"op": "unsubscribe", "symbol": "btcusdt", "id": "x"})
        assert await socket.receive() == {"op": "unsubscribed", "symbol": "BTCUSDT", "interval": "1m", "id": "x"}
        commit(topic, candle(minute(10)))
        topic.set_state(State.STALE)
        assert await socket.rest() == []
        assert not topic.subscribers


async def test_unsubscribe_while_the_series_starts(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 3
    async with many(web) as socket:
        await socket.send(SUBSCRIBE)
        await trio.sleep(1)
        await socket.send({"op": "unsubscribe", "symbol": "BTCUSDT", "id": 2})
        first, second = await socket.take(2)
        assert {"op": "unsubscribed", "symbol": "BTCUSDT", "interval": "1m", "id": 2} in (first, second)
        assert {first.get("code"), second.get("code")} == {"not_subscribed", None}
        await trio.sleep(10)
        assert await socket.rest() == []
        assert not topic.subscribers


@pytest.mark.parametrize("pause", [0, 1, 2, 3, 5, 8])
async def test_unsubscribed_in_the_same_breath_nothing_comes_any_more(pause: int) -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "id": 1})
        for _ in range(pause):
            await trio.lowlevel.checkpoint()
        await socket.send({"op": "unsubscribe", "symbol": "BTCUSDT", "id": 2})
        messages = await socket.rest()
        assert sorted(message["id"] for message in messages if "id" in message) == [1, 2], "each has an answer"
        assert not topic.subscribers
        commit(topic, candle(minute(10)))
        assert await socket.rest() == []


async def test_unsubscribe_of_what_is_not_subscribed() -> None:
    web = Web()
    web.topic()
    async with many(web) as socket:
        error = await error_after(socket, {"op": "unsubscribe", "symbol": "btcusdt", "id": 3})
        assert (error["code"], error["id"]) == ("not_subscribed", 3)
        assert (error["symbol"], error["interval"]) == ("BTCUSDT", "1m")


# --- states


async def test_a_state_comes_at_each_change_and_the_candles_before_live() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 0})
        await socket.take(2)
        topic.set_state(State.STALE)
        assert await socket.receive() == {"op": "state", "symbol": "BTCUSDT", "interval": "1m", "state": "stale"}
        topic.set_state(State.SYNCING)
        assert (await socket.receive())["state"] == "syncing"
        # What made it whole, and the change, in one turn of the synchronizer.
        commit(topic, *minutes(10, 12))
        topic.set_state(State.LIVE)
        messages = await socket.take(4)
        assert numbers(messages[:3]) == [10, 11, 12]
        assert messages[3]["state"] == "live"
        assert await socket.rest() == []


async def test_a_state_is_told_at_each_subscription() -> None:
    web = Web()
    web.topic()
    web.topic(series=ETH, state=State.STALE)
    async with many(web) as socket:
        for symbol, state in (("BTCUSDT", "live"), ("ETHUSDT", "stale"), ("BTCUSDT", "live")):
            await socket.send({"op": "subscribe", "symbol": symbol, "replay": 0})
            assert (await socket.receive())["op"] == "subscribed"
            message = {"op": "state", "symbol": symbol, "interval": "1m", "state": state}
            assert await socket.receive() == message


# --- errors, each to the client that made it


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "bad_message"),
        ("hello", "bad_message"),
        ("{'op':'ping'}", "bad_message"),
        ('{"op":"ping"', "bad_message"),
        ('{"op":"ping"}{"op":"ping"}', "bad_message"),
        ('{"op":NaN}', "bad_message"),
        ('{"op":"ping","id":"\\ud800"}', "bad_message"),
        ("[" * 30_000, "bad_message"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "bad_message"),
        ("1" * 5000, "bad_message"),
        ('{"op":"ping","id":' + "1" * 5000 + "}", "bad_message"),
        ('{"op":"ping","id":1e999}', "bad_message"),
        ("1", "bad_message"),
        ("null", "bad_message"),
        ('"ping"', "bad_message"),
        ('[{"op":"ping"}]', "bad_message"),
        ({}, "bad_message"),
        ({"op": "dance"}, "bad_message"),
        ({"op": None}, "bad_message"),
        ({"op": ["subscribe"]}, "bad_message"),
        ({"op": "SUBSCRIBE", "symbol": "BTCUSDT"}, "bad_message"),
        ({"op": "subscribe"}, "bad_parameter"),
        ({"op": "subscribe", "symbol": 5}, "bad_parameter"),
        ({"op": "subscribe", "symbol": "BTCUSDT", "interval": 1}, "bad_parameter"),
        ({"op": "subscribe", "symbol": "BTCUSDT", "interval": None}, "bad_parameter"),
        ({"op": "subscribe", "symbol": ["BTCUSDT"]}, "bad_parameter"),
        ({"op": "unsubscribe"}, "bad_parameter"),
        ({"op": "subscribe", "symbol": "b\u0131tcoin"}, "unknown_symbol"),
        ({"op": "subscribe", "symbol": "x" * 60_000}, "unknown_symbol"),
        ({**SUBSCRIBE, "interval": "1H"}, "bad_interval"),
        ({**SUBSCRIBE, "replay": 1001}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": -1}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": "5"}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": 5.0}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": True}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": 10**15}, "bad_parameter"),
        ('{"op":"subscribe","symbol":"BTCUSDT","replay":' + "9" * 1000 + "}", "bad_parameter"),
        ({**SUBSCRIBE, "since": minute(0)}, "bad_parameter"),
        ({**SUBSCRIBE, "since": "yesterday"}, "bad_parameter"),
        ({**SUBSCRIBE, "position": 5}, "bad_parameter"),
        ({**SUBSCRIBE, "position": "nonsense"}, "bad_parameter"),
        ({**SUBSCRIBE, "replay": 5, "position": f"{LIFE}-1"}, "bad_parameter"),
    ],
)
async def test_a_bad_message_gets_an_error_and_the_socket_stays_open(message: object, code: str) -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket, many(web) as other:
        assert (await error_after(socket, message))["code"] == code
        assert await socket.rest() == []
        assert await other.rest() == []
        assert not topic.subscribers


async def test_the_thousand_digits_of_a_number_are_no_number_of_ours() -> None:
    """Neither the position in a text, nor the id, nor the symbol is read or sent back at that length."""
    web = Web()
    web.topic()
    async with many(web) as socket:
        error = await error_after(socket, {**SUBSCRIBE, "position": f"{LIFE}-" + "9" * 1000, "id": 5})
        assert (error["code"], error["id"]) == ("bad_parameter", 5)
        assert len(json.dumps(error)) < 400


@pytest.mark.parametrize("value", [0, 1, -1, 1.5, 2**53, "", "a", "ü", "x" * 100, True])
async def test_an_id_comes_back_as_it_was(value: object) -> None:
    web = Web()
    async with many(web) as socket:
        await socket.send({"op": "ping", "id": value})
        assert await socket.receive() == {"op": "pong", "id": value}
        await socket.send({"op": "dance", "id": value})
        assert (await socket.receive())["id"] == value


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, "x" * 101, 2**53 + 1, 10**300])
async def test_an_id_that_is_no_id_does_not_come_back(value: object) -> None:
    web = Web()
    async with many(web) as socket:
        await socket.send({"op": "ping", "id": value})
        assert await socket.receive() == {"op": "pong"}


async def test_a_binary_message_closes_the_socket_with_1003() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket, many(web) as other:
        await socket.send(SUBSCRIBE)
        await socket.rest()
        await socket.send(b"\x00\x01")
        assert (await socket.until_closed())[0] == 1003
        await wait_all_tasks_blocked()
        assert socket.ended.is_set()
        assert not topic.subscribers
        assert not other.closed.is_set()


@pytest.mark.parametrize(
    ("error", "code"),
    [(TooMany("200 symbols"), "too_many"), (UpstreamUnavailable("down"), "upstream_unavailable")],
)
async def test_what_hinders_a_series_is_told_and_the_others_go_on(error: Any, code: str) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.refusals["ETHUSDT"] = error
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 0})
        await socket.rest()
        answer = await error_after(socket, {"op": "subscribe", "symbol": "ETHUSDT", "id": 2})
        assert (answer["code"], answer["symbol"], answer["id"]) == (code, "ETHUSDT", 2)
        commit(topic, candle(minute(10)))
        assert numbers([await socket.receive()]) == [10]


async def test_an_unknown_symbol_is_told() -> None:
    web = Web()
    async with many(web) as socket:
        error = await error_after(socket, {"op": "subscribe", "symbol": "NOPE", "id": 1})
        assert (error["code"], error["symbol"], error["id"]) == ("unknown_symbol", "NOPE", 1)


async def test_a_start_that_cannot_be_honoured_is_too_old_for_that_series_alone() -> None:
    web = Web()
    bitcoin = web.topic()
    web.topic(series=ETH)
    async with many(web) as socket:
        await socket.send({**SUBSCRIBE, "replay": 0})
        await socket.rest()
        for start in ({"position": "other-1"}, {"since": 0}):
            error = await error_after(socket, {"op": "subscribe", "symbol": "ethusdt", "id": 2, **start})
            assert (error["code"], error["symbol"], error["interval"], error["id"]) == ("too_old", "ETHUSDT", "1m", 2)
        commit(bitcoin, candle(minute(10)))
        assert numbers([await socket.receive()]) == [10]


async def test_a_client_that_falls_behind_the_history_is_too_old_for_that_series_alone() -> None:
    web = Web(history=10)
    bitcoin = web.topic()
    ether = web.topic(series=ETH)
    async with many(web, capacity=0) as socket:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await socket.send({"op": "subscribe", "symbol": symbol, "replay": 0})
        await socket.take(4)
        commit(ether, forming(minute(10)))
        await wait_all_tasks_blocked()  # it is being sent, and not taken
        for number in range(10, 30):
            commit(bitcoin, candle(minute(number)))
        commit(ether, candle(minute(10)))
        messages = await socket.take(3)
        error = next(message for message in messages if message.get("op") == "error")
        assert (error["code"], error["symbol"], error["interval"]) == ("too_old", "BTCUSDT", "1m")
        assert [message["closed"] for message in messages if message["symbol"] == "ETHUSDT"] == [False, True]
        assert not bitcoin.subscribers
        assert len(ether.subscribers) == 1
        await socket.send({"op": "unsubscribe", "symbol": "BTCUSDT"})
        assert (await socket.receive())["code"] == "not_subscribed"


async def test_ten_thousand_subscriptions_on_one_socket(autojump_clock: MockClock) -> None:
    web = Web(max_subscriptions=20, message_rate=0)
    topics = [
        web.topic([candle(interval.floor(T0), interval=interval)], series=Series(f"S{number}", interval))
        for number in range(3)
        for interval in INTERVALS
    ]
    web.supervisor.delay = 1
    async with many(web) as socket, many(web) as other:
        answers = []
        for number in range(10_000):
            topic = topics[number] if number < len(topics) else None
            symbol, interval = (topic.series.symbol, str(topic.series.interval)) if topic else (f"X{number}", "1m")
            await socket.send({"op": "subscribe", "symbol": symbol, "interval": interval, "replay": 0, "id": number})
            answers += await socket.rest()
        assert [answer["code"] for answer in answers] == ["too_many"] * 9_980
        assert [answer["id"] for answer in answers] == list(range(20, 10_000))
        await trio.sleep(2)
        assert [answer["op"] for answer in await socket.rest()].count("subscribed") == 20
        assert sum(len(topic.subscribers) for topic in topics) == 20
        await socket.send({"op": "subscribe", "symbol": "S0", "interval": "1s", "replay": 0})  # it has that one
        await trio.sleep(2)
        assert [answer["op"] for answer in await socket.rest()] == ["subscribed", "state"]
        await socket.send({"op": "unsubscribe", "symbol": "S0", "interval": "1s"})
        await socket.send({"op": "subscribe", "symbol": "S2", "interval": "1m", "replay": 0})
        await trio.sleep(2)
        assert [answer["op"] for answer in await socket.rest()] == ["unsubscribed", "subscribed", "state"]
        assert await other.rest() == []


# --- slow clients


async def test_a_slow_client_skips_forming_updates_but_no_candle_and_holds_up_nobody() -> None:
    web = Web()
    topic = web.topic()
    async with many(web, capacity=0) as slow, many(web) as quick:
        for socket in (slow, quick):
            await socket.send({**SUBSCRIBE, "replay": 0})
            await socket.take(2)
        count = 0
        for number in range(10, 20):
            for trades in range(1, 20):
                commit(topic, forming(minute(number), trades=trades))
                await wait_all_tasks_blocked()
                count += 1
            commit(topic, candle(minute(number), trades=20))
            await wait_all_tasks_blocked()
            count += 1
        assert len(await quick.rest()) == count
        messages = [await slow.receive()]  # the one that it was being sent all the time
        assert messages[0]["rev"] == 2
        messages += await slow.take(10)
        assert [message["volume"] for message in messages[1:]] == [20.5] * 10
        assert numbers(messages[1:]) == list(range(10, 20))
        assert [message.get("position") for message in messages[1:]] == [None] * 9 + [f"{LIFE}-{count + 1}"]
        assert await slow.rest() == []


async def test_what_is_held_for_a_slow_client_does_not_grow() -> None:
    web = Web()
    topic = web.topic()
    async with many(web, capacity=0) as socket:
        await socket.send({**SUBSCRIBE, "replay": 0})
        await socket.take(2)
        (session,) = web.sockets.open
        (subscriber,) = topic.subscribers
        commit(topic, forming(minute(10), trades=1))
        await wait_all_tasks_blocked()
        for trades in range(2, 500):
            commit(topic, forming(minute(10), trades=trades))
        outbox = session.outbox
        assert list(outbox._ready) == [subscriber]
        # A position, and what it was told last: integers, an enumeration, a name.
        assert set(Subscriber.__slots__) == {"life", "only_since", "outbox", "revision", "state", "topic"}
        assert len(await socket.take(2)) == 2
        assert await socket.rest() == []


async def test_answers_do_not_cut_a_catch_up_in_two() -> None:
    web = Web()
    web.topic()
    async with many(web, capacity=0) as socket:
        await socket.send({**SUBSCRIBE, "replay": 10})
        await socket.take(4)
        await socket.send({"op": "ping"})
        messages = await socket.take(9)
        assert numbers(messages[:8]) == list(range(2, 10))
        assert messages[8] == {"op": "pong"}


# --- the end


async def test_a_client_that_leaves_leaves_nothing() -> None:
    web = Web()
    topic = web.topic()
    async with many(web) as socket:
        await socket.send(SUBSCRIBE)
        await socket.rest()
        assert len(web.sockets.open) == len(topic.subscribers) == 1
    assert not web.sockets.open
    assert not topic.subscribers
    assert web.sockets.messages_sent == 7


async def test_a_client_that_leaves_while_it_is_sent_something_leaves_nothing() -> None:
    web = Web()
    topic = web.topic()
    async with many(web, capacity=0) as socket:
        await socket.send(SUBSCRIBE)
        await socket.receive()
    commit(topic, candle(minute(10)))
    await wait_all_tasks_blocked()
    assert not web.sockets.open
    assert not topic.subscribers


async def test_a_client_that_leaves_while_series_start_leaves_nothing(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 5
    async with many(web) as socket:
        await socket.send(SUBSCRIBE)
        await wait_all_tasks_blocked()
    await trio.sleep(10)
    assert not web.sockets.open
    assert not topic.subscribers
    assert trio.current_time() == 10


async def test_going_down_closes_with_1012_whatever_the_socket_does(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.topic(series=ETH)
    async with many(web) as idle, many(web) as subscribed, many(web) as starting:
        await subscribed.send(SUBSCRIBE)
        await subscribed.rest()
        web.supervisor.delay = 5
        await starting.send({"op": "subscribe", "symbol": "ETHUSDT"})
        await wait_all_tasks_blocked()
        web.stopping.set()
        for socket in (idle, subscribed, starting):
            assert await socket.until_closed() == (1012, "going_down")
        await wait_all_tasks_blocked()
        assert all(socket.ended.is_set() for socket in (idle, subscribed, starting))
        assert not web.sockets.open
        assert not topic.subscribers
        assert trio.current_time() == 0


async def test_a_server_that_goes_down_takes_no_new_sockets() -> None:
    web = Web()
    web.stopping.set()
    async with many(web) as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "going_down", "1")
