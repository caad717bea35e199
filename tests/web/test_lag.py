"""Clients that are behind: who is too slow for it all, and who is only slow now and then."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.hub import Hub, Topic
from candlesync.web.base import PATIENCE, Channel, Closing
from candlesync.web.parameters import Replay
from candlesync.web.session import OneSeries
from tests.builders import BTC, forming, minute, minutes, then
from tests.pipe import Pipe, messages_of
from tests.web.builders import commit


class Viewer:
    """A session over a `Pipe`, and how it ended."""

    def __init__(self) -> None:
        self.topic: Topic = Hub(10).open(BTC)
        commit(self.topic, *minutes(0, 1), forming(minute(2)), life="life0")
        self.pipe = Pipe()
        self.to_session, receive = trio.open_memory_channel[str](10)
        self.session = OneSeries(Channel(receive.receive, _no_send, self.pipe), self.topic, Replay(1))
        self.closing: Closing | None = None

    def publish(self) -> None:
        tail = self.topic.replica.tail
        assert tail is not None
        self.topic.publish(then(self.topic.replica, forming(tail.open_time, trades=tail.trades + 1)))

    async def run(self) -> None:
        self.closing = await self.session.run()


async def _no_send(_message: str) -> None:
    raise AssertionError("the line is there to be written to")


@asynccontextmanager
async def viewing() -> AsyncIterator[Viewer]:
    viewer = Viewer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run)
        await wait_all_tasks_blocked()
        yield viewer
        nursery.cancel_scope.cancel()


async def test_a_client_that_is_always_behind_is_too_slow(autojump_clock: MockClock) -> None:
    async with viewing() as viewer:
        viewer.pipe.room = 0
        # Each message takes it a second, and the next is there already.
        while viewer.closing is None:
            viewer.publish()
            await trio.sleep(1)
            viewer.pipe.widen(300)
            await wait_all_tasks_blocked()
            viewer.pipe.room = 0
        assert PATIENCE < trio.current_time() < PATIENCE + 5
        assert viewer.closing == Closing(1013, "too_slow")
        assert not viewer.topic.subscribers


async def test_a_client_that_is_slow_now_and_then_is_not(autojump_clock: MockClock) -> None:
    async with viewing() as viewer:
        for _ in range(100):
            viewer.pipe.room = 0
            viewer.publish()
            await trio.sleep(20)
            viewer.pipe.widen(math.inf)
            await trio.sleep(20)
        assert viewer.closing is None
        messages, _ = messages_of(viewer.pipe.got)
        assert [json.loads(message)["rev"] for message in messages] == list(range(1, 102))


@pytest.mark.parametrize("begun", [True, False])
async def test_two_that_wait_at_once_wait_once(autojump_clock: MockClock, begun: bool) -> None:
    """What the hub has begun, and the answer to a ping."""
    async with viewing() as viewer:
        viewer.pipe.room = 1 if begun else 0
        viewer.publish()
        await wait_all_tasks_blocked()
        for _ in range(5):
            await viewer.to_session.send('{"op":"ping"}')
        await trio.sleep(PATIENCE - 5)
        viewer.pipe.widen(math.inf)
        await wait_all_tasks_blocked()
        assert viewer.closing is None
        assert viewer.session._lag == pytest.approx(PATIENCE - 5)
        await trio.sleep(PATIENCE)
        viewer.pipe.room = 0
        viewer.publish()
        await trio.sleep(1)
        viewer.pipe.widen(math.inf)
        await wait_all_tasks_blocked()
        assert viewer.session._lag == pytest.approx(1), "what it has caught up is forgotten"


async def test_a_client_that_takes_all_at_once_never_lags(autojump_clock: MockClock) -> None:
    async with viewing() as viewer:
        for _ in range(50):
            viewer.publish()
            await viewer.to_session.send('{"op":"ping"}')
            await wait_all_tasks_blocked()
        assert viewer.session._lag == 0
        assert viewer.topic.written == 50
