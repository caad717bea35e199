"""The synchronizer over a store that is outside of the process, and at times not to be reached."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from candlesync.announcements import Announcements
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.core.sync import State
from candlesync.errors import StoreUnavailable
from candlesync.hub import Hub
from candlesync.inspection import InspectionSettings
from candlesync.ownership import SoleOwnership
from candlesync.store.memory import MemoryStore
from candlesync.symbol import Means, SymbolTask
from candlesync.synchronizer import _holds
from tests.builders import BTC, begun, candle, forming, minute, minutes, then
from tests.stand_ins import Feeds, Klines, no_audit
from tests.upstream import RULES, TroubledStore, World


class DistantStore(TroubledStore):
    """A store that says itself that it cannot be asked."""

    def __init__(self) -> None:
        super().__init__(RULES.history)
        self.down = False
        self.refuses_commits = False
        """As a server without memory does."""
        self.asked_at: list[float] = []
        """When it was asked for a series or its position."""
        self.reads = 0

    async def read(self, series: Series) -> Snapshot | None:
        self.reads += 1
        self.asked_at.append(trio.current_time())
        self._answer()
        return await super().read(series)

    async def position(self, series: Series) -> Position | None:
        self.asked_at.append(trio.current_time())
        self._answer()
        return await super().position(series)

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        self._answer()
        if self.refuses_commits:
            self.attempts.append(commit.revision)
            raise StoreUnavailable("out of memory")
        await super().commit(series, commit, token=token)

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


# --- commits of unknown outcome


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_of_unknown_outcome_is_settled_by_asking(autojump_clock: MockClock, happened: bool) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        (world.store.lose_after if happened else world.store.lose_before).add(2)
        reads, asked = world.store.reads, len(world.upstream.asked_at)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(2)
        assert world.store.reads == reads + happened, "a commit that did not happen leaves nothing to read"
        assert len(world.upstream.asked_at) == asked, "REST has nothing to say about that"
        assert world.candles[-1] == candle(minute(3))
        assert world.topic.states[-2:] == [State.SYNCING, State.LIVE]
        assert world.topic.failure == ""
        await world.check_store_and_topic_agree()
        assert [made.revision for made in world.store.commits] == [1, 2], "it was made once"
        published = [made.revision for made in world.topic.published_commits]
        assert published == ([1] if happened else [1, 2]), "what happened came by reading"


async def test_also_one_that_is_longer_than_the_history(autojump_clock: MockClock) -> None:
    """What it says of the oldest has left the history with it."""
    world = DistantWorld()
    world.upstream.candles = minutes(0, 19)
    async with world.running() as synchronizer:
        world.store.lose_after.add(2)
        asked = len(world.upstream.asked_at)
        world.upstream.candles = minutes(0, 39)
        synchronizer.frame(forming(minute(39), trades=11))
        await trio.sleep(1)
        assert len(world.store.commits[-1].candles) == RULES.history + 1
        assert world.candles == [*minutes(20, 38), forming(minute(39), trades=11)]
        assert len(world.upstream.asked_at) == asked + 1
        assert world.topic.states[-1:] == [State.LIVE]


async def test_in_place_of_a_commit_of_unknown_outcome_stands_another(autojump_clock: MockClock) -> None:
    """At the very position that it would have made: what the store has is shown, and REST confirms it."""
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.lose_before.add(2)
        world.store.down = True
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(1)
        foreign = Commit(world.topic.replica.life, 2, (candle(minute(3), "3.00"),))
        await MemoryStore.commit(world.store, BTC, foreign, token=world.token)
        world.upstream.candles = [*minutes(0, 2), *foreign.candles]
        asked = len(world.upstream.asked_at)
        world.store.down = False
        await trio.sleep(5)
        assert world.candles[-1] == candle(minute(3), "3.00")
        assert len(world.upstream.asked_at) > asked
        await world.check_store_and_topic_agree()


async def test_a_first_commit_that_did_not_happen_is_made_again_without_reading(autojump_clock: MockClock) -> None:
    """Neither the store nor the replica has anything: that is the same, too."""
    world = DistantWorld()
    world.store.lose_before.add(1)
    async with world.running():
        await trio.sleep(1)
        assert world.topic.states[-1:] == [State.LIVE]
        assert world.store.attempts == [1, 1]
        assert (world.store.reads, len(world.upstream.asked_at)) == (1, 1)


async def test_what_went_on_meanwhile_is_read_once(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.lose_before.add(2)
        world.store.down = True
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(1)
        for revision, foreign in enumerate(minutes(3, 4), start=2):
            commit = Commit(world.topic.replica.life, revision, (foreign,))
            await MemoryStore.commit(world.store, BTC, commit, token=world.token)
        world.upstream.candles = minutes(0, 4)
        reads = world.store.reads
        world.store.down = False
        await trio.sleep(5)
        assert world.candles == minutes(0, 4)
        assert world.store.reads == reads + 1


def test_a_commit_is_the_last_that_happened_only_where_the_store_is_at_its_position() -> None:
    """It may have gone on, or lost everything, between the question for its position and the one for the series."""
    replica = begun(minutes(0, 3))
    commit = then(replica, candle(minute(4)))
    assert not _holds(None, commit)
    assert not _holds(replica.snapshot(), commit)
    replica.apply(commit)
    assert _holds(replica.snapshot(), commit)
    replica.apply(then(replica, candle(minute(5))))
    assert not _holds(replica.snapshot(), commit)


async def test_each_blip_of_the_store_costs_nothing_but_time(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        asked, reads = len(world.upstream.asked_at), world.store.reads
        for closed in minutes(3, 12):
            world.store.down = True
            synchronizer.frame(closed)
            await trio.sleep(1)
            assert world.topic.states[-1:] == [State.SYNCING]
            world.store.down = False
            await trio.sleep(1)
            assert world.topic.states[-1:] == [State.LIVE]
        assert (len(world.upstream.asked_at), world.store.reads) == (asked, reads)
        await world.check_store_and_topic_agree()


async def test_a_store_that_takes_no_commits_is_tried_ever_more_seldom(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.refuses_commits = True
        attempts, asked = len(world.store.attempts), len(world.upstream.asked_at)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(60)
        assert 15 < len(world.store.attempts) - attempts < 25
        assert len(world.upstream.asked_at) == asked
        assert world.topic.failure == "out of memory"
        assert world.topic.states[-1:] == [State.SYNCING]
        world.store.refuses_commits = False
        await trio.sleep(5)
        assert world.topic.states[-1:] == [State.LIVE]
        assert world.topic.failure == ""
        assert world.candles[-1] == candle(minute(3))


async def test_a_reconnect_after_a_commit_that_did_not_happen_ends_live(autojump_clock: MockClock) -> None:
    """There may be nothing left to commit that would show the store to be there again."""
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.refuses_commits = True
        synchronizer.frame(forming(minute(3), trades=11))
        await trio.sleep(5)
        synchronizer.connected()
        await trio.sleep(10)
        world.store.refuses_commits = False
        await trio.sleep(10)
        assert world.topic.states[-1:] == [State.LIVE]


# --- a store that is not there


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
            assert world.topic.failure == world.topic.reason == "the store is down"
            assert world.candles == [*minutes(0, 2), forming(minute(3), "37003.00000000")], "served as it was"
        world.store.down = False
        world.upstream.candles = minutes(0, 9)
        await trio.sleep(10)
        assert world.topic.state is State.LIVE
        assert world.topic.failure == ""
        assert world.candles[:-1] == minutes(0, 8)
        await world.check_store_and_topic_agree()
    gaps = [after - before for before, after in pairwise(world.store.asked_at)][1:-1]
    assert gaps[:5] == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])
    assert gaps[5:] == pytest.approx([4.0] * len(gaps[5:]))


async def test_that_it_is_down_and_there_again_is_logged_once(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        with capture_logs() as logged:
            world.store.down = True
            synchronizer.frame(candle(minute(3)))
            await trio.sleep(60)
            world.store.down = False
            await trio.sleep(10)
    assert [entry["event"] for entry in logged] == ["the store does not answer", "the store answers again"]


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
        gaps = [after - before for before, after in pairwise(world.store.asked_at)]
        assert gaps[:3] == pytest.approx([0.0, 0.25, 0.5]), "the second time at once"
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


# --- a store that has fallen back


async def test_a_store_that_was_wiped_is_made_whole_in_a_new_life(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        for trades in range(11, 20):
            synchronizer.frame(forming(minute(3), trades=trades))
            await trio.sleep(0.1)
        asked, position, before = len(world.upstream.asked_at), world.topic.replica.position, world.candles
        world.store.fall_back(None)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(0.1)
        made, last = world.topic.published_commits[-2:]
        assert (made.revision, made.begins, made.replaces) == (1, True, "")
        assert list(made.candles) == before, "all that was served, and nothing else"
        assert list(last.candles) == [candle(minute(3))]
        replica = world.topic.replica
        assert replica.position == Position(made.life, 2)
        assert not replica.can_resume(position)
        assert replica.can_resume(Position(made.life, 1))
        assert len(world.upstream.asked_at) == asked, "what was known of the tail is still true"
        assert world.topic.state is State.LIVE
        await world.check_store_and_topic_agree()


async def test_a_store_that_went_back_is_made_whole_in_a_new_life(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        old, life = await world.stored(), world.topic.replica.life
        for closed in minutes(3, 7):
            synchronizer.frame(closed)
            await trio.sleep(0.1)
        world.store.fall_back(old)
        synchronizer.frame(*minutes(8, 8))
        await trio.sleep(1)
        assert world.candles == minutes(0, 8)
        assert world.topic.replica.life != life
        assert next(made for made in world.store.commits if made.replaces).replaces == life
        assert world.topic.states[-1:] == [State.LIVE]
        await world.check_store_and_topic_agree()


@pytest.mark.parametrize("is_older", [True, False])
async def test_of_two_lives_the_one_that_has_come_further_stays(autojump_clock: MockClock, is_older: bool) -> None:
    """Of another life the revisions say nothing; its tail does."""
    world = DistantWorld()
    async with world.running() as synchronizer:
        tail = forming(minute(3), "9.00", trades=9 if is_older else 12)
        other = Replica(BTC, RULES.history)
        other.apply(Commit("other", 1, (*minutes(1, 2), forming(minute(3), trades=1)), begins=True))
        for trades in range(2, 8):
            other.apply(Commit("other", trades, (forming(minute(3), trades=trades),)))
        other.apply(Commit("other", 8, (tail,)))
        world.store.fall_back(other.snapshot())
        world.upstream.candles[-1] = candle(minute(3), trades=15)
        synchronizer.frame(forming(minute(3), "9.00", trades=20))
        await trio.sleep(1)
        assert (world.topic.replica.life == "other") is not is_older
        assert world.candles[0] == candle(minute(0 if is_older else 1), f"{37000 + (not is_older)}.00000000")
        assert world.candles[-1].trades == 20
        await world.check_store_and_topic_agree()


async def test_what_was_found_before_the_store_fell_back_is_not_asked_for_again(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.upstream.candles = minutes(0, 6)
        world.store.fall_back(None)
        asked = len(world.upstream.asked_at)
        synchronizer.frame(forming(minute(6), trades=11))
        await trio.sleep(1)
        assert len(world.upstream.asked_at) == asked + 1
        assert world.candles == [*minutes(0, 5), forming(minute(6), trades=11)]
        assert [made.begins for made in world.store.commits] == [True, True, False]
        await world.check_store_and_topic_agree()


async def test_a_new_life_is_not_live_before_what_was_found_is_in_it(autojump_clock: MockClock) -> None:
    """Found by simulation: after a reconnect a wiped store was made whole, called live, and only then up to date."""
    world = DistantWorld()
    told: list[tuple[State, int]] = []

    def note() -> None:
        told.append((world.topic.state, world.candles[-1].open_time))

    async with world.running() as synchronizer:
        world.topic.on_state_change = note
        synchronizer.lost()
        world.store.fall_back(None)
        world.upstream.candles = minutes(0, 6)
        synchronizer.connected()
        await trio.sleep(1)
        assert told[-1] == (State.LIVE, minute(6))
        assert [time for state, time in told if state is State.LIVE] == [minute(6)]
        await world.check_store_and_topic_agree()


@pytest.mark.parametrize("happened", [True, False])
async def test_a_new_life_of_unknown_outcome_is_settled_too(autojump_clock: MockClock, happened: bool) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.fall_back(None)
        (world.store.lose_after if happened else world.store.lose_before).add(1)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(1)
        assert [made.revision for made in world.store.commits] == [1, 1, 2]
        assert world.candles[-1] == candle(minute(3))
        assert world.topic.states[-1:] == [State.LIVE]
        await world.check_store_and_topic_agree()


async def test_a_new_life_that_comes_too_late_takes_what_it_finds(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running() as synchronizer:
        world.store.fall_back(None)
        world.store.delay = 1.0
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(1.5)  # the new life is on its way
        foreign = Commit("other", 1, (*minutes(0, 3), forming(minute(4))), begins=True)
        await MemoryStore.commit(world.store, BTC, foreign, token=world.token)
        world.store.delay = 0.0
        world.upstream.candles = [*minutes(0, 3), candle(minute(4))]
        await trio.sleep(3)
        assert world.topic.replica.life == "other"
        assert world.topic.states[-1:] == [State.LIVE]
        await world.check_store_and_topic_agree()


async def test_a_store_that_contradicts_itself_is_not_asked_without_a_pause(autojump_clock: MockClock) -> None:
    """It refuses what follows from what it says, for ever."""
    world = DistantWorld()
    async with world.running() as synchronizer:

        async def nothing(_series: Series) -> None:
            await trio.lowlevel.checkpoint()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "read", nothing)
            foreign = Commit(world.topic.replica.life, 2, (candle(minute(3), "3.00"),))
            await world.store.commit(BTC, foreign, token=world.token)
            attempts = len(world.store.attempts)
            synchronizer.frame(candle(minute(3)))
            await trio.sleep(60)
            assert 10 < len(world.store.attempts) - attempts < 25
        await trio.sleep(10)
        assert world.candles[-1] == candle(minute(3), "3.00")
        assert world.topic.states[-1:] == [State.LIVE]


# --- a synchronizer that takes over from a follower


async def test_whoever_is_where_the_store_is_begins_without_reading(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running():
        pass
    reads = world.store.reads
    async with world.running():
        assert world.topic.state is State.LIVE
        assert world.store.reads == reads


async def test_whoever_missed_a_commit_reads_first(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running():
        pass
    foreign = Commit(world.topic.replica.life, 2, (candle(minute(3)), forming(minute(4))))
    await world.store.commit(BTC, foreign, token=world.token)
    async with world.running(connected=False):
        await trio.sleep(0.1)
        assert world.candles[-1] == forming(minute(4))


async def test_whoever_has_more_than_the_store_makes_it_whole_before_rest_answers(autojump_clock: MockClock) -> None:
    world = DistantWorld()
    async with world.running():
        life = world.topic.replica.life
    world.store.fall_back(None)
    async with world.running(connected=False):
        await trio.sleep(0.1)
        assert world.topic.replica.life != life
        assert world.topic.states[-1:] == [State.STALE]
        await world.check_store_and_topic_agree()


# --- letting go


async def test_a_series_is_let_go_of_while_the_store_is_down(autojump_clock: MockClock) -> None:
    store, hub = DistantStore(), Hub(RULES.history)
    means = Means(
        hub=hub,
        store=store,
        klines=Klines(),
        feeds=Feeds(),
        rules=RULES,
        inspection=InspectionSettings(),
        ownership=SoleOwnership(store),
        announcements=Announcements(),
        audit=no_audit(),
    )
    task = SymbolTask("BTCUSDT", {Interval.M1}, means)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        await trio.sleep(1)
        store.down = True
        await task.remove(Interval.M1)
        assert hub.get(BTC) is None
        nursery.cancel_scope.cancel()
