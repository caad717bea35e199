"""The synchronizer over a store in this process: a live frame is committed and published where it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.replica import Commit
from candlesync.core.sync import State
from candlesync.errors import Fenced
from candlesync.store.memory import MemoryStore
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, candle, candles_of, forming, minute, minutes
from tests.upstream import RULES, Upstream, WatchedTopic


class World:
    """A synchronizer of a live series, and what is around it."""

    def __init__(self) -> None:
        self.upstream = Upstream(minutes(0, 3))
        self.store = MemoryStore(RULES.history)
        self.topic = WatchedTopic()

    @asynccontextmanager
    async def live(self) -> AsyncIterator[Synchronizer]:
        token = await self.store.claim("BTCUSDT")
        synchronizer = Synchronizer(self.topic, self.store, self.upstream, RULES, token=token)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(synchronizer.run)
            synchronizer.connected()
            await trio.sleep(1)
            assert self.topic.state is State.LIVE
            yield synchronizer
            nursery.cancel_scope.cancel()

    def state(self) -> State:
        return self.topic.state

    async def check_store_and_topic_agree(self) -> None:
        assert await self.store.read(BTC) == self.topic.replica.snapshot()


async def test_a_live_frame_is_published_before_its_giver_goes_on(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        for frame in (
            candle(minute(3)),
            forming(minute(4)),
            forming(minute(4), trades=11),
            candle(minute(4), trades=12),
        ):
            synchronizer.frame(frame)
            assert world.topic.replica.tail == frame  # no await since it was handed over
            assert synchronizer.frame_time == trio.current_time()
        assert synchronizer.sync.statistics.dropped_frames == 0
        await world.check_store_and_topic_agree()
        revision = world.topic.replica.revision
        await trio.sleep(1)
        assert world.topic.replica.revision == revision
        assert world.topic.state is State.LIVE


async def test_what_does_not_follow_is_for_the_task_and_so_is_what_comes_meanwhile(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        world.upstream.candles = minutes(0, 6)
        world.upstream.delay = 0.5
        synchronizer.frame(forming(minute(6)))
        await trio.sleep(0.1)
        synchronizer.frame(forming(minute(6), trades=11))
        assert world.state() is State.SYNCING
        assert candles_of(world.topic.replica)[-1].open_time == minute(3)
        await trio.sleep(2)
        assert candles_of(world.topic.replica)[3:] == [*minutes(3, 5), forming(minute(6), trades=11)]
        assert world.state() is State.LIVE
        synchronizer.frame(forming(minute(6), trades=12))
        assert world.topic.replica.tail == forming(minute(6), trades=12)
        await world.check_store_and_topic_agree()


async def test_nothing_is_published_while_somebody_else_is_in_the_critical_section(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        async with world.topic.lock:
            synchronizer.frame(candle(minute(3)))
            await trio.sleep(1)
            assert world.topic.replica.tail != candle(minute(3))
        await trio.sleep(1)
        assert world.topic.replica.tail == candle(minute(3))


async def test_a_store_that_may_be_another_is_looked_at_first(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        life = world.topic.replica.life
        world.store._series.clear()
        synchronizer.doubt()
        synchronizer.frame(candle(minute(3)))
        assert world.topic.replica.tail != candle(minute(3))
        await trio.sleep(1)
        assert world.topic.replica.tail == candle(minute(3))
        assert world.topic.replica.life != life
        await world.check_store_and_topic_agree()


async def test_a_store_that_is_doubted_gets_nothing_before_it_was_looked_at(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        tail = world.topic.replica.tail
        synchronizer.doubt()
        synchronizer.frame(candle(minute(3)))
        assert world.topic.replica.tail == tail
        await trio.sleep(1)
        assert world.topic.replica.tail == candle(minute(3))


async def test_a_store_that_was_wiped_is_made_whole_when_it_is_doubted(autojump_clock: MockClock) -> None:
    """On a thin pair nothing may be committed for a long time, which would show it."""
    world = World()
    async with world.live() as synchronizer:
        life = world.topic.replica.life
        world.store._series.clear()
        synchronizer.doubt()
        await trio.sleep(1)
        assert world.topic.replica.life != life
        await world.check_store_and_topic_agree()


async def test_another_writer_is_noticed(autojump_clock: MockClock) -> None:
    world = World()
    async with world.live() as synchronizer:
        position = world.topic.replica.position
        foreign = Commit(position.life, position.revision + 1, (candle(minute(3), "3.00"),))
        world.store.commit_now(BTC, foreign, token=synchronizer._token)
        synchronizer.frame(forming(minute(3), trades=11))
        assert world.topic.replica.position == position
        await trio.sleep(1)
        assert candles_of(world.topic.replica)[3] == candle(minute(3), "3.00")
        await world.check_store_and_topic_agree()


async def test_whoever_is_fenced_off_stops_and_publishes_nothing(autojump_clock: MockClock) -> None:
    world = World()
    with pytest.RaisesGroup(Fenced):
        async with world.live() as synchronizer:
            published = list(world.topic.published_commits)
            await world.store.claim("BTCUSDT")
            synchronizer.frame(candle(minute(3)))
            await trio.sleep(1)
    assert world.topic.published_commits == published
    assert world.topic.state is State.STALE
