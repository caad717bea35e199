"""How much the client of one WebSocket may say, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from tests.builders import candle, minute
from tests.web.builders import Socket, Web, commit
from tests.web.test_metrics import samples

PING = {"op": "ping"}


async def say(socket: Socket, *messages: object) -> list[Any]:
    """Send each message, and take what is answered to it."""
    answers = []
    for message in messages:
        await socket.send(message)
        answers += await socket.rest()
    return answers


async def test_all_subscriptions_at_once_and_again_are_not_too_fast(autojump_clock: MockClock) -> None:
    web = Web()
    for number in range(500):
        web.topic([candle(minute(0))], series=Series(f"S{number}", Interval.M1))
    async with web.socket("/ws/candles") as socket:
        for op in ("subscribe", "unsubscribe"):
            messages = [{"op": op, "symbol": f"S{number}", "id": number} for number in range(500)]
            answers = await say(socket, *messages)
            assert [answer["id"] for answer in answers if answer.get("op") == f"{op}d"] == list(range(500))


async def test_a_message_over_the_rate_is_answered_and_not_acted_on(autojump_clock: MockClock) -> None:
    web = Web(message_rate=2.0, max_subscriptions=5)
    topic = web.topic()
    async with web.socket("/ws/candles") as socket, web.socket("/ws/candles") as other:
        await say(socket, *[PING] * 40)
        subscribe = {"op": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "id": 7, "replay": 0}
        (error,) = await say(socket, subscribe)
        assert (error["op"], error["code"], error["id"], error["symbol"]) == ("error", "too_many", 7, "BTCUSDT")
        assert not topic.subscribers
        assert [answer["op"] for answer in await say(other, subscribe)] == ["subscribed", "state"]
        (error,) = await say(socket, "no JSON")
        assert error["code"] == "bad_message", "what cannot be read counts, and says so"
        await trio.sleep(0.5)
        assert [answer["op"] for answer in await say(socket, subscribe)] == ["subscribed", "state"]
        commit(topic, candle(minute(10)))
        assert len(await socket.rest()) == len(await other.rest()) == 1


@pytest.mark.parametrize("path", ["/ws/candles", "/ws/candles/BTCUSDT?replay=0"])
async def test_who_goes_on_far_over_the_rate_is_closed(path: str, autojump_clock: MockClock) -> None:
    web = Web(message_rate=5.0)
    topic = web.topic()
    async with web.socket("/ws/candles/BTCUSDT?replay=0") as other, web.socket(path) as socket:
        answered = []
        with trio.fail_after(1200):
            while not socket.closed.is_set():
                answered += await say(socket, *[PING] * 12)
                await trio.sleep(1)
        assert await socket.until_closed() == (4429, "too_many")
        pongs = sum(answer["op"] == "pong" for answer in answered)
        seconds = trio.current_time()
        assert pongs == pytest.approx(1000 + 5 * seconds, abs=10)
        assert {answer["op"] for answer in answered} == {"pong", "error"}
        commit(topic, candle(minute(10)))
        assert (await other.receive())["rev"] == 2
    found = await samples(web)
    assert found["candlesync_refused_total", ("message_rate",)] == len(answered) - pongs + 1


async def test_who_is_a_little_too_fast_is_not_closed(autojump_clock: MockClock) -> None:
    web = Web(message_rate=5.0)
    async with web.socket("/ws/candles") as socket:
        for _ in range(600):
            answers = await say(socket, *[PING] * 9)
            await trio.sleep(1)
        assert {answer["op"] for answer in answers} == {"pong", "error"}
        assert not socket.closed.is_set()


async def test_without_a_rate_there_is_no_limit() -> None:
    web = Web(message_rate=0)
    async with web.socket("/ws/candles") as socket:
        answers = await say(socket, *[PING] * 3000)
        assert answers == [{"op": "pong"}] * 3000


async def test_a_client_that_subscribes_and_reads_nothing_makes_no_more_tasks(autojump_clock: MockClock) -> None:
    web = Web(max_subscriptions=10, message_rate=0)
    web.topic()
    async with web.socket("/ws/candles", capacity=0) as socket:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        said = 0
        with trio.move_on_after(60):
            while True:
                await socket.send({"op": "subscribe", "symbol": "BTCUSDT", "id": said})
                said += 1
                await wait_all_tasks_blocked()
        assert said < 50, "it is not read from any more"
        assert trio.lowlevel.current_statistics().tasks_living - before <= 20
        # Once it reads, each message has its answer, and it goes on.
        answers: list[Any] = []
        while len(answers) < said:
            message = json.loads(await socket.receive_text())
            if "id" in message:
                answers.append(message)
        assert sorted(answer["id"] for answer in answers) == list(range(said))
        codes = {answer.get("code") for answer in answers}
        assert codes == {None, "too_many"}
        await socket.rest()
        for _ in range(30):
            answers = await say(socket, {"op": "subscribe", "symbol": "BTCUSDT", "replay": 0})
            assert [answer["op"] for answer in answers] == ["subscribed", "state"]


async def test_a_storm_of_series_that_must_be_started_makes_as_many_tasks_as_subscriptions(
    autojump_clock: MockClock,
) -> None:
    web = Web(max_subscriptions=10)
    web.supervisor.delay = 10.0
    async with web.socket("/ws/candles") as socket:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        answers = await say(socket, *({"op": "subscribe", "symbol": f"X{number}"} for number in range(500)))
        assert [answer["code"] for answer in answers] == ["too_many"] * 490
        assert trio.lowlevel.current_statistics().tasks_living - before == 10
        assert len(web.supervisor.asked) == 10
