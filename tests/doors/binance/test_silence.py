"""Clients whose network has died without a word: they come back before, or after, that shows here."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from candlesync.edge.line import Line
from candlesync.hub import Topic
from tests.builders import candle, minute
from tests.doors.binance.bot import Bot, alike, told
from tests.edge.clients import PING, PONG, handshake
from tests.web.builders import Web, commit, on_a_port


def closed(first: int, last: int) -> list[tuple[int, bool]]:
    return [(number, True) for number in range(first, last + 1)]


@pytest.fixture
def web() -> Web:
    return Web()


async def close_minutes(topic: Topic, first: int, last: int) -> None:
    """A second each."""
    for number in range(first, last + 1):
        commit(topic, candle(minute(number)))
        await trio.sleep(1)


async def test_what_was_sent_into_silence_is_sent_again(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    bot = Bot(web)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await trio.sleep(1)
        await close_minutes(topic, 10, 12)
        bot.pipe.fall_silent()
        await close_minutes(topic, 13, 15)
        assert bot.got == closed(10, 15), "the kernel takes it"
        nursery.cancel_scope.cancel()  # as a connection ends that answers no ping
    bot.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bot.run)
        await trio.sleep(1)
        assert bot.got == closed(13, 15)
        nursery.cancel_scope.cancel()


async def test_a_client_goes_on_though_its_old_connection_has_not_ended(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    old, new, other = alike(web, 3)
    async with trio.open_nursery() as nursery:
        of_old = trio.CancelScope()

        async def run_old() -> None:
            with of_old:
                await old.run()

        nursery.start_soon(run_old)
        await trio.sleep(1)
        await close_minutes(topic, 10, 11)
        old.pipe.fall_silent(is_noticed=False)
        await close_minutes(topic, 12, 14)
        nursery.start_soon(new.run)
        await close_minutes(topic, 15, 16)  # while the old one is asked
        await trio.sleep(5)
        assert new.got == closed(12, 16)
        of_old.cancel()
        await trio.sleep(1)
        assert len(old.means.departures) == 0, "nobody is to go on from there once more"
        nursery.start_soon(other.run)
        await trio.sleep(5)
        assert other.got == []
        nursery.cancel_scope.cancel()


async def test_each_of_those_that_come_back_goes_on_for_one(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    bots = alike(web, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bots[0].run)
        nursery.start_soon(bots[1].run)
        await trio.sleep(1)
        await close_minutes(topic, 10, 10)
        bots[0].pipe.fall_silent()
        await close_minutes(topic, 11, 11)
        bots[1].pipe.fall_silent()
        await close_minutes(topic, 12, 12)
        for bot in bots[2:]:
            nursery.start_soon(bot.run)
            await trio.sleep(5)
        assert [bot.got for bot in bots[2:]] == [closed(11, 12), closed(12, 12), []]
        nursery.cancel_scope.cancel()


async def test_all_clients_of_a_network_that_has_died_come_back_together(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    bots = alike(web, 40)
    async with trio.open_nursery() as nursery:
        for bot in bots[:20]:
            nursery.start_soon(bot.run)
        await trio.sleep(1)
        await close_minutes(topic, 10, 10)
        for bot in bots[:20]:
            bot.pipe.fall_silent()
        await close_minutes(topic, 11, 12)
        for bot in bots[20:]:
            nursery.start_soon(bot.run)
        await trio.sleep(5)
        assert [bot.got for bot in bots[20:]] == [closed(11, 12)] * 20
        nursery.cancel_scope.cancel()


async def test_of_two_programs_that_are_there_each_has_its_own(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    one, two = alike(web, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio.sleep(1)
        await close_minutes(topic, 10, 12)
        nursery.start_soon(two.run)
        await trio.sleep(1)
        assert two.got == []
        await close_minutes(topic, 13, 13)
        assert (one.got, two.got) == (closed(10, 13), closed(13, 13))
        nursery.cancel_scope.cancel()


async def test_one_that_was_taken_for_gone_and_was_not_is_remembered_when_it_goes(
    web: Web, autojump_clock: MockClock
) -> None:
    topic = web.topic()
    slow, two = alike(web, 2)
    async with trio.open_nursery() as nursery:
        of_slow = trio.CancelScope()

        async def run_slow() -> None:
            with of_slow:
                await slow.run()

        nursery.start_soon(run_slow)
        await trio.sleep(1)
        slow.pipe.fall_silent()
        await close_minutes(topic, 10, 11)
        nursery.start_soon(two.run)
        await trio.sleep(5)
        assert two.got == closed(10, 11)
        slow.pipe.speak_again()
        await close_minutes(topic, 12, 12)
        of_slow.cancel()
        await trio.sleep(1)
        assert len(slow.means.departures) == 1
        slow.connect()
        await close_minutes(topic, 13, 13)
        nursery.start_soon(slow.run)
        await trio.sleep(1)
        assert slow.got == closed(13, 13)
        nursery.cancel_scope.cancel()


async def test_who_leaves_while_the_old_connection_is_asked_leaves_nothing(web: Web, autojump_clock: MockClock) -> None:
    topic = web.topic()
    old, new = alike(web, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(old.run)
        await trio.sleep(1)
        old.pipe.fall_silent(is_noticed=False)
        await close_minutes(topic, 10, 11)
        with trio.move_on_after(1):
            await new.run()
        assert len(topic.subscribers) == 1
        nursery.cancel_scope.cancel()
    assert not topic.subscribers
    assert not old.means.present


async def test_under_the_real_server(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "answers_within", 0.3)
    topic = web.topic()
    url = "/binance/ws/btcusdt@kline_1m"
    async with on_a_port(web) as port, await port.connect() as old, await port.connect() as new:
        silent = await handshake(old, url)
        commit(topic, candle(minute(10)))
        await silent.read_until(b'"x":true')
        await silent.send(b"", PONG)
        await trio.sleep(1.1)  # or it has just been heard of
        other = await handshake(new, url)
        commit(topic, candle(minute(11)))
        await other.read_until(b"1700000760000")
        assert told(other.messages) == closed(10, 11), "the pong came too soon after the first to say that it has come"
        await silent.read_until(b"1700000760000")
        pings = [payload for opcode, payload in silent.frames if opcode == PING]
        assert len(pings) == 2, "as it connected, and when it was asked"
