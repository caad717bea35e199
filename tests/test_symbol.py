"""The task of one symbol: intervals come and go while it runs. Real synchronizers, store and hub; a stand-in feed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.announcements import Announcements
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import Rules
from candlesync.errors import StoreUnavailable, UnknownSymbol
from candlesync.hub import Hub, Outbox, Topic
from candlesync.inspection import InspectionSettings
from candlesync.ownership import SoleOwnership
from candlesync.store.memory import MemoryStore
from candlesync.symbol import Means, SymbolTask
from tests.builders import BTC, forming, minute, unheard
from tests.stand_ins import Feeds, Klines, no_audit

BTC_5M = Series("BTCUSDT", Interval.M5)
BTC_1H = Series("BTCUSDT", Interval.H1)


class Store(MemoryStore):
    """A store that takes its time to forget, as one outside of the process does; and may be down."""

    down = False

    async def claim(self, symbol: str) -> int:
        if self.down:
            await trio.sleep(1)
            raise StoreUnavailable("the store is down")
        return await super().claim(symbol)

    async def forget(self, series: Series, *, token: int) -> None:
        await trio.sleep(0.1)
        await super().forget(series, token=token)


class World:
    """A task and what is around it."""

    def __init__(self, *intervals: Interval) -> None:
        self.hub = Hub(1000)
        self.store = Store(1000)
        self.klines = Klines()
        self.feeds = Feeds()
        self.intervals = set(intervals)
        means = Means(
            hub=self.hub,
            store=self.store,
            klines=self.klines,
            feeds=self.feeds,
            rules=Rules(),
            inspection=InspectionSettings(silence=1e6, fills_first=1e6),
            ownership=SoleOwnership(self.store),
            announcements=Announcements(),
            audit=no_audit(),
        )
        self.task = SymbolTask("BTCUSDT", self.intervals, means)

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[SymbolTask]:
        """The task, running; in the end nothing of it is left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.task.run)
            await trio.sleep(1)
            yield self.task
            nursery.cancel_scope.cancel()
        self.assert_nothing_runs()

    def assert_nothing_runs(self) -> None:
        assert self.task.synchronizers == {}
        assert self.task.followers == {}
        assert self.task.tenure is None
        assert self.feeds.followed == []
        assert self.feeds.sink is None

    def topic(self, series: Series) -> Topic:
        topic = self.hub.get(series)
        assert topic is not None, f"{series} is not followed"
        return topic


class Held:
    """What a request holds: its connection."""


def state_of(topic: Topic) -> str:
    return topic.state.value


# --- what it follows


async def test_it_follows_its_intervals_until_they_are_live(autojump_clock: MockClock) -> None:
    world = World(Interval.M1, Interval.M5)
    async with world.runs() as task:
        for series in (BTC, BTC_5M):
            topic = world.topic(series)
            assert (state_of(topic), len(topic.replica)) == ("live", 5)
            assert await world.store.read(series) == topic.replica.snapshot()
        assert task.synchronizers.keys() == {Interval.M1, Interval.M5}


async def test_an_interval_does_not_keep_the_request_that_added_it(autojump_clock: MockClock) -> None:
    request: ContextVar[Held] = ContextVar("request")
    gone = []

    async def ask(task: SymbolTask) -> None:
        held = Held()
        gone.append(weakref.ref(held))
        request.set(held)
        task.add(Interval.M5)
        await trio.sleep(1)

    world = World(Interval.M1)
    async with world.runs() as task:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, task)
        gc.collect()
        assert state_of(world.topic(BTC_5M)) == "live"
        assert gone[0]() is None, "it has ended"


async def test_a_frame_goes_to_its_own_series(autojump_clock: MockClock) -> None:
    world = World(Interval.M1, Interval.M5)
    async with world.runs():
        world.feeds.show(BTC, forming(minute(4), "5.00000000", trades=99))
        world.feeds.show(BTC_1H, forming(BTC_1H.interval.floor(minute(0))))  # nobody follows it: no harm
        await trio.sleep(1)
        tail = world.topic(BTC).replica.tail
        assert tail is not None
        assert (tail.close, tail.trades) == ("5.00000000", 99)
        assert world.topic(BTC_5M).replica.revision == 1


async def test_lost_and_connected_again(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        topic = world.topic(BTC)
        task.stream_lost(BTC, "gone")
        task.stream_lost(BTC_1H, "never there")
        assert state_of(topic) == "stale"
        asked = len(world.klines.asked)
        await trio.sleep(100)
        assert len(world.klines.asked) == asked, "nothing is asked for a series without a feed"
        world.feeds.connect(Interval.M1)
        assert state_of(topic) == "syncing", "not before REST has confirmed the tail"
        await trio.sleep(1)
        assert state_of(topic) == "live"
        assert len(world.klines.asked) > asked


async def test_the_end_makes_its_series_stale_and_keeps_what_they_hold(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs():
        topic = world.topic(BTC)
        assert state_of(topic) == "live"
    assert state_of(topic) == "stale"
    assert world.topic(BTC) is topic
    assert len(topic.replica) == 5


# --- intervals that come


async def test_an_interval_joins_while_it_runs(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        task.add(Interval.M5)
        await trio.sleep(1)
        assert state_of(world.topic(BTC_5M)) == "live"
        assert world.feeds.asked == [("follow", Interval.M1), ("follow", Interval.M5)]


async def test_an_interval_that_joins_twice_is_followed_once(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        for _ in range(3):
            task.add(Interval.M5)
        task.add(Interval.M1)
        await trio.sleep(1)
        task.add(Interval.M5)
        await trio.sleep(1)
        assert world.feeds.followed == [Interval.M1, Interval.M5]


async def test_an_interval_that_joins_before_it_runs_is_followed(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    world.task.add(Interval.M5)
    assert world.intervals == {Interval.M1, Interval.M5}
    async with world.runs():
        assert set(world.feeds.followed) == {Interval.M1, Interval.M5}


# --- intervals that go


async def test_an_interval_leaves_while_the_others_go_on(autojump_clock: MockClock) -> None:
    world = World(Interval.M1, Interval.M5)
    async with world.runs() as task:
        gone = world.topic(BTC_5M)
        await task.remove(Interval.M5)
        await trio.sleep(1)
        assert world.hub.get(BTC_5M) is None
        assert await world.store.read(BTC_5M) is None, "and nothing is kept of it"
        assert state_of(gone) == "stale"
        assert task.synchronizers.keys() == world.intervals == {Interval.M1}
        assert world.feeds.followed == [Interval.M1]
        world.feeds.show(BTC, forming(minute(4), trades=99))
        await trio.sleep(1)
        assert world.topic(BTC).replica.revision == 2


async def test_an_interval_that_left_and_comes_again_begins_anew(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        life = world.topic(BTC).replica.life
        await task.remove(Interval.M1)
        task.add(Interval.M1)
        await trio.sleep(1)
        assert state_of(world.topic(BTC)) == "live"
        assert world.topic(BTC).replica.life != life
        assert world.feeds.followed == [Interval.M1]


async def test_it_leaves_and_comes_again_at_once(autojump_clock: MockClock) -> None:
    """Who follows it anew must not read what the store is about to forget: it could never change it again."""
    world = World(Interval.M1)
    async with world.runs() as task, trio.open_nursery() as nursery:
        nursery.start_soon(task.remove, Interval.M1)
        await trio.sleep(0.01)
        assert world.hub.get(BTC) is None
        assert await world.store.read(BTC) is not None
        task.add(Interval.M1)
        await trio.sleep(1)
        topic = world.topic(BTC)
        assert state_of(topic) == "live"
        world.feeds.show(BTC, forming(minute(4), trades=99))
        await trio.sleep(1)
        assert topic.replica.revision == 2
        assert await world.store.read(BTC) == topic.replica.snapshot()
        assert world.feeds.followed == [Interval.M1]


async def test_it_comes_and_leaves_at_once(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        task.add(Interval.M5)
        await task.remove(Interval.M5)
        await trio.sleep(1)
        assert world.hub.get(BTC_5M) is None
        assert world.feeds.followed == [Interval.M1]
        task.add(Interval.M5)
        await task.remove(Interval.M5)
        task.add(Interval.M5)
        await trio.sleep(1)
        assert state_of(world.topic(BTC_5M)) == "live"


async def test_an_interval_that_nobody_follows_leaves_without_harm(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    await world.task.remove(Interval.H1)  # not running yet
    async with world.runs() as task:
        await task.remove(Interval.H1)
        assert world.feeds.followed == [Interval.M1]


async def test_an_interval_leaves_when_the_symbol_has_another_owner(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        await world.store.claim("BTCUSDT")
        await task.remove(Interval.M1)
        assert world.hub.get(BTC) is None
        assert await world.store.read(BTC) is not None, "what is kept is the new owner's"


async def test_a_subscriber_of_what_left_hears_no_more(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    async with world.runs() as task:
        topic = world.topic(BTC)
        outbox = Outbox(unheard)
        topic.subscribe(outbox)
        await task.remove(Interval.M1)
        await trio.sleep(1)
        outbox.take()  # the state: it is stale now
        revision = topic.replica.revision
        task.stream_frame(BTC, forming(minute(4), trades=99))
        await trio.sleep(1)
        assert topic.replica.revision == revision


# --- death


async def test_what_a_synchronizer_cannot_deal_with_ends_the_task_and_all_of_it(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)

    async def join_what_is_unknown() -> None:
        async with world.runs() as task:
            world.klines.unknown.add(Interval.M5)
            task.add(Interval.M5)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await join_what_is_unknown()
    assert caught.group_contains(UnknownSymbol)
    world.assert_nothing_runs()
    assert state_of(world.topic(BTC)) == "stale"


async def test_an_interval_that_joins_while_a_dead_task_still_ends(autojump_clock: MockClock) -> None:
    """It is followed by the next task, and nobody gets an error for having come at this moment."""
    world = World(Interval.M1)
    world.feeds.end_after = 5
    world.klines.unknown.add(Interval.M1)

    async def join_late() -> None:
        await trio.sleep(2)
        assert world.task.synchronizers == {}
        assert world.feeds.sink is not None
        world.task.add(Interval.M5)
        await world.task.remove(Interval.M1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join_late)
        with pytest.raises(ExceptionGroup) as caught:
            await world.task.run()
    assert caught.group_contains(UnknownSymbol)
    assert trio.current_time() > 5
    assert world.intervals == {Interval.M5}
    world.assert_nothing_runs()


async def test_an_interval_that_joins_when_the_symbol_could_not_be_obtained(autojump_clock: MockClock) -> None:
    world = World(Interval.M1)
    world.store.down = True
    with pytest.RaisesGroup(StoreUnavailable):
        await world.task.run()
    world.task.add(Interval.M5)
    assert world.intervals == {Interval.M1, Interval.M5}
    world.assert_nothing_runs()


async def test_a_task_that_is_cancelled_at_once_leaves_nothing() -> None:
    world = World(Interval.M1)
    for ticks in range(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.task.run)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        world.assert_nothing_runs()
    await wait_all_tasks_blocked()
