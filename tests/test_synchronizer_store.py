"""The synchronizer over a store that is outside of the process, and at times not to be reached."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.sync import State
from candlesync.errors import StoreUnavailable
from candlesync.hub import Hub
from candlesync.inspection import InspectionSettings
from candlesync.store.memory import MemoryStore
from candlesync.symbol import SymbolTask
from tests.builders import BTC, candle, forming, minute, minutes
from tests.upstream import RULES, TroubledStore, World


class DistantStore(TroubledStore):
    """A store that says itself that it cannot be asked."""

    def __init__(self) -> None:
        super().__init__(RULES.history)
        self.down = False
        self.lose_before: set[int] = set()
        """The commits that make these revisions do not happen, and nobody is told so; each once."""
        self.lose_after: set[int] = set()
        """The commits that make these revisions happen, and nobody is told so; each once."""
        self.reads_at: list[float] = []

    async def read(self, series: Series) -> Snapshot | None:
        self.reads_at.append(trio.current_time())
        self._answer()
        return await super().read(series)

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        self._answer()
        if commit.revision in self.lose_before:
            self.lose_before.remove(commit.revision)
            raise StoreUnavailable("the connection was lost")
        await super().commit(series, commit, token=token)
        if commit.revision in self.lose_after:
            self.lose_after.remove(commit.revision)
            raise StoreUnavailable("the connection was lost")

    async def forget(self, series: Series, *, token: int) -> None:
        self._answer()
        await super().forget(series, token=token)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")


class DistantWorld(World):
    store: DistantStore

    def __init__(self) -> None:
        super().__init__(minutes(0, 3))
        self.store = DistantStore()


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_of_unknown_outcome_is_settled_by_reading(autojump_clock: MockClock, happened: bool) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        (world.store.lose_after if happened else world.store.lose_before).add(2)
        reads = len(world.store.reads_at)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(2)
        assert len(world.store.reads_at) == reads + 1
        assert world.candles[-1] == candle(minute(3))
        assert world.topic.state is State.LIVE
        assert world.topic.failure == ""
        await world.check_store_and_topic_agree()
        assert [made.revision for made in world.store.commits] == [1, 2], "it was made once"
        published = [made.revision for made in world.topic.published_commits]
        assert published == ([1] if happened else [1, 2]), "what happened came by reading"


async def test_while_the_store_is_down_the_feed_goes_on_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        assert world.topic.states[-1:] == [State.LIVE]
        world.store.down = True
        for closed in minutes(3, 8):
            synchronizer.frame(closed)
            synchronizer.frame(forming(closed.open_time + 60_000))
            await trio.sleep(10)
            assert world.topic.states[-1:] == [State.SYNCING]
            assert world.topic.failure == "the store is down"
            assert world.candles == [*minutes(0, 2), forming(minute(3), "37003.00000000")], "served as it was"
        world.store.down = False
        world.upstream.candles = minutes(0, 9)
        await trio.sleep(10)
        assert world.topic.state is State.LIVE
        assert world.topic.failure == ""
        assert world.candles[:-1] == minutes(0, 8)
        await world.check_store_and_topic_agree()
    gaps = [after - before for before, after in zip(world.store.reads_at[1:], world.store.reads_at[2:], strict=False)]
    assert gaps[:5] == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])
    assert gaps[5:-1] == pytest.approx([4.0] * len(gaps[5:-1])), "the last read is the test's own"


async def test_a_reconnect_while_the_store_is_down_is_not_called_live(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.down = True
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(5)
        synchronizer.lost()
        assert world.topic.states[-1:] == [State.STALE]
        synchronizer.connected()
        await trio.sleep(5)
        assert world.topic.states[-1:] == [State.SYNCING]


async def test_a_store_that_is_down_from_the_start_is_waited_for(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    synchronizer = await world.make()
    world.store.down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(synchronizer.run)
        synchronizer.connected()
        await trio.sleep(60)
        assert world.topic.failure == "the store is down", "whoever asks for the series is told why"
        assert world.upstream.asked_at == []
        world.store.down = False
        await trio.sleep(5)
        assert world.topic.state is State.LIVE
        nursery.cancel_scope.cancel()


async def test_it_can_be_cancelled_while_it_waits_for_the_store(autojump_clock: MockClock) -> None:
    for seconds in (0.0, 0.1, 0.3, 5.0):
        world = DistantWorld()
        synchronizer = await world.make()
        world.store.down = True
        with trio.move_on_after(seconds) as scope:
            await synchronizer.run()
        assert scope.cancelled_caught
        assert world.topic.state is State.STALE


async def test_a_series_is_let_go_of_while_the_store_is_down() -> None:
    store = DistantStore()
    unused = cast("Any", None)
    task = SymbolTask(
        "BTCUSDT",
        {Interval.M1},
        hub=Hub(RULES.history),
        store=store,
        klines=unused,
        feeds=unused,
        rules=RULES,
        inspection=InspectionSettings(),
    )
    store.down = True
    await task.remove(Interval.M1)
    assert await MemoryStore.read(store, BTC) is None
