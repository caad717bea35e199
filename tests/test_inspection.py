"""A silent connection is dead when REST knows newer trades; a fill is looked at again, ever more seldom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from candlesync.core.sync import State
from candlesync.errors import UpstreamUnavailable
from candlesync.inspection import InspectionSettings, watch_fills, watch_silence
from candlesync.synchronizer import Synchronizer
from tests.builders import candle, flat, forming, minute, minutes
from tests.upstream import World

SETTINGS = InspectionSettings()


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[tuple[Synchronizer, list[tuple[float, str]]]]:
    """A synchronizer under both watches, and the reconnects that were asked for: after how many seconds, and why."""
    started = trio.current_time()
    reconnects: list[tuple[float, str]] = []

    def reconnect(reason: str) -> None:
        reconnects.append((trio.current_time() - started, reason))

    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        nursery.start_soon(watch_silence, synchronizer, SETTINGS, reconnect)
        nursery.start_soon(watch_fills, synchronizer, SETTINGS)
        yield synchronizer, reconnects
        nursery.cancel_scope.cancel()


# --- silence


async def test_a_connection_that_is_silent_while_rest_knows_newer_trades_is_dead(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (_, reconnects):
        world.upstream.candles[-1] = candle(minute(3), trades=11)
        await trio.sleep(14)
        ((after, reason),) = reconnects
        assert after == pytest.approx(13.0)
        assert reason == "BTCUSDT 1m sent nothing for 13 s while REST knows newer trades"
        assert world.candles[-1] == forming(minute(3), trades=11), "what REST showed is not lost meanwhile"


async def test_also_when_it_has_missed_whole_candles(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (_, reconnects):
        world.upstream.candles = minutes(0, 5)
        await trio.sleep(14)
        assert len(reconnects) == 1


async def test_as_long_as_it_stays_dead_it_is_made_anew_again(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        for number in range(4, 10):
            world.upstream.candles.append(candle(minute(number)))
            await trio.sleep(14)
            synchronizer.connected()
            await trio.sleep(1)
        assert len(reconnects) == 6


async def test_a_thin_pair_is_left_alone_and_asked_about_ever_more_seldom(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (_, reconnects):
        asked = len(world.upstream.asked_at)
        await trio.sleep(600)
        times = world.upstream.asked_at[asked - 1 :]
        pauses = [after - before for before, after in pairwise(times)]
        assert pauses == pytest.approx([10, 20, 40, 80, 120, 120, 120])
        assert reconnects == []


async def test_candles_without_trades_do_not_make_a_connection_dead(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (_, reconnects):
        for number in range(4, 9):
            world.upstream.candles.append(candle(minute(number), trades=0))
            await trio.sleep(60)
        assert reconnects == []


async def test_frames_show_that_a_connection_lives(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        asked = len(world.upstream.asked_at)
        for trades in range(11, 40):
            await trio.sleep(9)
            synchronizer.frame(forming(minute(3), trades=trades))
        assert len(world.upstream.asked_at) == asked
        assert reconnects == []


async def test_after_a_thin_time_silence_is_noticed_within_the_cap(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        await trio.sleep(600)
        synchronizer.frame(forming(minute(3), trades=11))
        world.upstream.candles[-1] = candle(minute(3), trades=12)
        await trio.sleep(SETTINGS.silence_cap + SETTINGS.silence_grace)
        assert len(reconnects) == 1


async def test_once_frames_come_again_silence_is_noticed_as_soon_as_ever(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        await trio.sleep(600)
        for trades in range(11, 41):
            synchronizer.frame(forming(minute(3), trades=trades))
            await trio.sleep(5)
        world.upstream.candles[-1] = candle(minute(3), trades=99)
        await trio.sleep(9)
        assert len(reconnects) == 1


async def test_a_frame_that_was_on_its_way_is_waited_for(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        world.upstream.candles[-1] = candle(minute(3), trades=11)
        await trio.sleep(12)
        synchronizer.frame(forming(minute(3), trades=11))
        await trio.sleep(9)
        assert reconnects == []


async def test_a_frame_that_comes_while_rest_answers_shows_life(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        world.upstream.candles[-1] = candle(minute(3), trades=11)
        world.upstream.delay = 4.0
        await trio.sleep(12)
        synchronizer.frame(forming(minute(3), trades=10, volume="10.75"))
        await trio.sleep(9)
        assert reconnects == []


async def test_while_rest_fails_nothing_is_known_and_it_is_asked_again(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (_, reconnects):
        world.upstream.candles[-1] = candle(minute(3), trades=11)
        world.upstream.failure = UpstreamUnavailable("down")
        await trio.sleep(25)
        assert reconnects == []
        world.upstream.failure = None
        await trio.sleep(20)
        assert len(reconnects) == 1


@pytest.mark.parametrize("lost", [False, True], ids=["syncing", "lost"])
async def test_a_series_that_is_not_live_is_asking_anyway(autojump_clock: MockClock, lost: bool) -> None:
    """And once it is live, silence is noticed as soon as ever."""
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, reconnects):
        if lost:
            synchronizer.lost()
        else:
            world.upstream.candles = []  # nothing that could confirm the tail
            synchronizer.connected()
        asked = len(world.upstream.asked_at)
        await trio.sleep(300)
        states = [world.topic.state]
        if lost:
            assert len(world.upstream.asked_at) == asked
        world.upstream.candles = minutes(0, 3)
        if lost:
            synchronizer.connected()
        await trio.sleep(5)
        states.append(world.topic.state)
        assert states == [State.STALE if lost else State.SYNCING, State.LIVE]
        assert reconnects == []
        world.upstream.candles.append(candle(minute(4)))
        await trio.sleep(30)
        assert len(reconnects) >= 1


# --- fills


@asynccontextmanager
async def with_fills(world: World) -> AsyncIterator[Synchronizer]:
    """The series 0 to 3, an outage of three minutes, and minute 7; the stream goes on."""
    async with watched(world) as (synchronizer, _), trio.open_nursery() as nursery:
        synchronizer.frame(minutes(3, 3)[0])
        world.upstream.candles += minutes(7, 7)
        synchronizer.frame(forming(minute(7)))
        await trio.sleep(6)
        assert [made.filled for made in world.candles] == [False] * 4 + [True] * 3 + [False]

        async def keep_talking() -> None:
            while True:
                synchronizer.frame(forming(minute(7)))
                await trio.sleep(5)

        nursery.start_soon(keep_talking)
        yield synchronizer
        nursery.cancel_scope.cancel()


async def test_fills_are_looked_at_again_ever_more_seldom(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with with_fills(world):
        asked = len(world.upstream.asked_at)
        await trio.sleep(3 * 3600)
        pauses = [after - before for before, after in pairwise(world.upstream.asked_at[asked:])]
        assert pauses == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600])


async def test_a_real_minute_that_appears_replaces_its_fill_and_the_next_ones_are_derived_anew(
    autojump_clock: MockClock,
) -> None:
    world = World(minutes(0, 3))
    async with with_fills(world):
        real = candle(minute(5), "55.00", trades=2)
        world.upstream.candles = [*minutes(0, 3), real, *minutes(7, 7)]
        await trio.sleep(60)
        assert world.candles[4:7] == [flat(minute(4), "37003.00000000"), real, flat(minute(6), "55.00")]
        assert world.topic.replica.filled == {minute(4), minute(6)}
        assert world.topic.state is State.LIVE


async def test_a_minute_that_only_the_stream_has_shown_is_corrected_when_rest_comes_to_have_it(
    autojump_clock: MockClock,
) -> None:
    world = World(minutes(0, 3))
    async with watched(world) as (synchronizer, _):
        synchronizer.frame(candle(minute(3)))
        synchronizer.frame(forming(minute(4), trades=5))
        world.upstream.candles = [*minutes(0, 3), *minutes(5, 5)]
        synchronizer.frame(forming(minute(5)))
        await trio.sleep(90)
        assert world.candles[4] == candle(minute(4), trades=5)
        world.upstream.candles = [*minutes(0, 3), candle(minute(4), trades=9), *minutes(5, 5)]
        await trio.sleep(60)
        assert world.candles[4] == candle(minute(4), trades=9)


async def test_a_new_fill_is_looked_at_soon_also_after_older_ones(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with with_fills(world) as synchronizer:
        await trio.sleep(1_000)
        world.upstream.candles += minutes(9, 9)
        synchronizer.frame(minutes(7, 7)[0])
        synchronizer.frame(forming(minute(9)))
        await trio.sleep(6)
        assert world.candles[-2].filled
        world.upstream.candles = [*minutes(0, 3), *minutes(7, 9)]
        await trio.sleep(1_000)
        assert not world.candles[-2].filled


async def test_while_rest_fails_fills_stay_and_are_looked_at_later(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with with_fills(world):
        world.upstream.candles = minutes(0, 7)
        world.upstream.failure = UpstreamUnavailable("down")
        await trio.sleep(100)
        assert len(world.topic.replica.filled) == 3
        assert world.topic.state is State.LIVE
        world.upstream.failure = None
        await trio.sleep(300)
        assert world.topic.replica.filled == set()


async def test_without_fills_nothing_is_asked(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        nursery.start_soon(watch_fills, synchronizer, SETTINGS)
        asked = len(world.upstream.asked_at)
        await trio.sleep(10_000)
        assert len(world.upstream.asked_at) == asked
        nursery.cancel_scope.cancel()
