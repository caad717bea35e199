"""What a synchronizer keeps record of: gaps with their length and time to heal, and delays."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.record import Record
from candlesync.core.sync import State, Statistics
from candlesync.errors import UpstreamUnavailable
from candlesync.hub import Topic
from candlesync.store.memory import MemoryStore
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, forming, minute, minutes
from tests.upstream import RULES, Upstream, World


def record_of(world: World) -> Record:
    return world.synchronizer._record


async def test_a_gap_that_the_stream_shows(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        healing = record_of(world).healing
        assert world.topic.state is State.LIVE
        assert (healing.found, healing.times.count) == (0, 0), "the first candles are no gap"
        world.upstream.failure = UpstreamUnavailable("down")
        world.upstream.candles = [*minutes(0, 7), forming(minute(8))]
        synchronizer.frame(forming(minute(8)))
        await trio.sleep(0.1)
        assert (healing.found, healing.open) == (1, 1)
        await trio.sleep(9.9)
        world.upstream.failure = None
        await trio.sleep(20)
        assert world.topic.state is State.LIVE
        assert (healing.found, healing.open, healing.abandoned) == (1, 0, 0)
        # The tail, forming when it was lost sight of, was there; minutes 5 to 7 were not.
        assert (healing.lengths.count, healing.lengths.sum) == (1, 3)
        assert healing.times.count == 1
        assert 10 <= healing.times.sum <= 26
        assert synchronizer.sync.statistics.missed == 3


async def test_a_gap_that_a_reconnect_leaves(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        healing = record_of(world).healing
        synchronizer.lost()
        world.upstream.candles = [*minutes(0, 5), forming(minute(6))]
        await trio.sleep(100)
        world.upstream.delay = 1.5
        synchronizer.connected()
        await trio.sleep(5)
        assert (healing.found, healing.open, healing.lengths.sum) == (1, 0, 1)
        assert healing.times.sum == pytest.approx(1.5, abs=0.1), "not how long Binance was away"
        synchronizer.lost()
        synchronizer.connected()
        await trio.sleep(5)
        assert healing.found == 1, "nothing was missing"
        assert record_of(world).backfills.count >= 2
        assert record_of(world).backfills.sum == pytest.approx(2 * 1.5, abs=0.1), "the first one took no time"


async def test_a_gap_longer_than_the_history_has_its_length(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        synchronizer.lost()
        world.upstream.candles = [*minutes(0, 2003), forming(minute(2004))]
        synchronizer.connected()
        await trio.sleep(30)
        healing = record_of(world).healing
        assert (healing.found, healing.open) == (1, 0)
        assert healing.lengths.sum == 1999


async def test_a_symbol_that_goes_elsewhere_takes_its_open_gap_along(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.upstream.failure = UpstreamUnavailable("down")
        synchronizer.frame(forming(minute(8)))
        await trio.sleep(1)
    assert (record.healing.open, record.healing.abandoned) == (0, 1)
    assert dict(record.counts())[None].gaps == 1


async def test_from_a_frame_to_its_commit_through_a_store_that_is_away(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.store.delay = 0.25
        synchronizer.frame(forming(minute(4), trades=50))
        await trio.sleep(1)
        assert (record.frame_delays.count, record.close_delays.count) == (1, 0)
        assert record.frame_delays.sum == pytest.approx(0.25)
        synchronizer.frame(minutes(4, 4)[0])
        await trio.sleep(1)
        assert record.close_delays.sum == pytest.approx(0.25)
        synchronizer.frame(minutes(4, 4)[0])  # again: nothing new, and nothing that waits for a commit
        await trio.sleep(10)
        synchronizer.frame(forming(minute(5)))
        await trio.sleep(1)
        assert (record.frame_delays.count, record.close_delays.count) == (3, 1)
        assert record.frame_delays.sum == pytest.approx(0.75)


async def test_a_frame_counts_from_when_the_first_that_waits_with_it_came(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.store.delay = 1.0
        synchronizer.frame(forming(minute(4), trades=50))
        await trio.sleep(0.125)  # the next ones wait for the store
        synchronizer.frame(forming(minute(4), trades=1))  # nothing new
        await trio.sleep(0.125)
        synchronizer.frame(minutes(4, 4)[0])
        await trio.sleep(0.25)
        synchronizer.frame(forming(minute(5)))
        await trio.sleep(5)
        assert (record.frame_delays.count, record.close_delays.count) == (2, 1)
        assert record.frame_delays.sum == pytest.approx(1.0 + 1.75)
        assert record.close_delays.sum == pytest.approx(1.75)


async def test_counts_end_with_their_synchronizer(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        assert record._current == {BTC: synchronizer.sync.statistics}
    assert record._current == {}
    assert dict(record.counts())[None].begun == 1
    async with world.running():
        successor = Statistics()
        record_of(world).begin(BTC, successor)
    assert record_of(world)._current == {BTC: successor}, "another's go on"


async def test_a_frame_that_told_less_than_rest_waits_no_more(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.store.delay = 1.0
        world.upstream.candles = [*minutes(0, 3), forming(minute(4), trades=60)]
        synchronizer.connected()
        await trio.sleep(0.5)
        synchronizer.frame(forming(minute(4), trades=50))
        await trio.sleep(10)
        synchronizer.frame(forming(minute(4), trades=70))
        await trio.sleep(5)
        assert record.frame_delays.count == 1
        assert record.frame_delays.sum == pytest.approx(1.0)


async def test_a_frame_behind_a_gap_waits_until_that_is_filled(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.upstream.candles = [*minutes(0, 6), forming(minute(7))]
        began = trio.current_time()
        synchronizer.frame(forming(minute(9)))
        await trio.sleep(1)
        assert world.topic.replica.tail is not None
        assert world.topic.replica.tail.open_time >= minute(6), "a part of it"
        assert record.frame_delays.count == 0
        world.upstream.candles = [*minutes(0, 8), forming(minute(9))]
        while world.topic.state is not State.LIVE:
            await world.topic.changed()
        assert record.frame_delays.sum == pytest.approx(trio.current_time() - began)


async def test_a_gap_that_is_filled_while_nothing_is_streamed_is_healed_when_that_goes_on(
    autojump_clock: MockClock,
) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        record = record_of(world)
        world.upstream.candles = [*minutes(0, 5), forming(minute(6))]
        world.upstream.delay = 1.0
        synchronizer.frame(forming(minute(6)))
        await trio.sleep(0.5)
        synchronizer.lost()
        await trio.sleep(50)
        assert (record.healing.open, record.healing.times.count) == (1, 0)
        synchronizer.connected()
        await trio.sleep(5)
        assert (record.healing.open, record.healing.times.count) == (0, 1)
        assert 51 <= record.healing.times.sum <= 52.5


async def test_a_connection_that_is_lost_again_before_anything_was_found(autojump_clock: MockClock) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        synchronizer.lost()
        world.upstream.candles = [*minutes(0, 5), forming(minute(6))]
        world.upstream.failure = UpstreamUnavailable("down")
        synchronizer.connected()
        await trio.sleep(1)
        synchronizer.lost()
        await trio.sleep(100)
        world.upstream.failure = None
        synchronizer.connected()
        await trio.sleep(5)
        healing = record_of(world).healing
        assert (healing.found, healing.lengths.sum) == (1, 1)
        assert healing.times.sum < 5


async def test_from_a_frame_to_its_commit_in_the_same_moment(autojump_clock: MockClock) -> None:
    store, record, topic = MemoryStore(RULES.history), Record(), Topic(BTC, RULES.history)
    upstream = Upstream([*minutes(0, 3), forming(minute(4))])
    token = await store.claim("BTCUSDT")
    synchronizer = Synchronizer(topic, store, upstream, RULES, token=token, record=record)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(synchronizer.run)
        synchronizer.connected()
        await trio.sleep(1)
        synchronizer.frame(forming(minute(4), trades=50))
        synchronizer.frame(minutes(4, 4)[0])
        assert (record.frame_delays.count, record.close_delays.count) == (2, 1)
        assert record.frame_delays.sum == 0.0
        nursery.cancel_scope.cancel()
