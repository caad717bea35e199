"""A follower over a store that it shares with an owner: what is announced, what is read, and what clients are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import trio
from trio.testing import MockClock

from candlesync.announcements import Announcements
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit, Replica
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.follower import Follower
from candlesync.hub import Hub, Outbox, Topic
from tests.builders import BTC, candle, candles_of, forming, minute, minutes, then, unheard
from tests.shared_store import NodeStore, SharedMemory

LEASE = 2.0


class Owner:
    """The node that owns the symbol: it commits and reports when the test says so."""

    def __init__(self, store: NodeStore, series: Series = BTC) -> None:
        self.series = series
        self.replica = Replica(series, 1000)
        self.state = State.LIVE
        self._store = store
        self._token = 0
        self._lives = count(1)

    async def claims(self) -> None:
        self._token = await self._store.claim(self.series.symbol)

    async def begins(self, *candles: Candle) -> None:
        replaced = self._store._server.series.get(self.series)
        life = f"life{next(self._lives)}"
        commit = Commit(life, 1, candles, begins=True, replaces=replaced.life if replaced else "")
        await self._store.commit(self.series, commit, token=self._token)
        self.replica.begin_life(commit)

    async def commits(self, *candles: Candle) -> None:
        commit = then(self.replica, *candles)
        await self._store.commit(self.series, commit, token=self._token)
        self.replica.apply(commit)

    async def reports(self) -> None:
        said = {self.series.interval: SeriesReport(self.state, self.replica.position)} if len(self.replica) else {}
        await self._store.renew(self.series.symbol, Report("owner", said), token=self._token)

    async def reports_on(self) -> None:
        """Four times a lease, until cancelled."""
        while True:
            await self.reports()
            await trio.sleep(LEASE / 4)

    async def gives_up(self) -> None:
        await self._store.release(self.series.symbol, Release("owner"), token=self._token)


class World:
    """An owner, and this node with its follower."""

    def __init__(self) -> None:
        self.server = SharedMemory(1000, LEASE)
        self.owner = Owner(self.server.node("owner"))
        self.node = self.server.node("node")
        self.announcements = Announcements("node", LEASE)
        self.topic = Hub(1000).open(BTC)
        self.follower = Follower(self.topic, self.node, fresh_for=LEASE)

    @asynccontextmanager
    async def follows(self, *candles: Candle, hears: bool = True, reports: bool = True) -> AsyncIterator[Topic]:
        """The follower, running over a series with these candles; it is ``live`` if it hears of it."""
        await self.owner.claims()
        if candles:
            await self.owner.begins(*candles)
        async with trio.open_nursery() as nursery:
            if hears:
                nursery.start_soon(self.node.listen, self.announcements)
            nursery.start_soon(self._follow)
            if reports:
                nursery.start_soon(self.owner.reports_on)
            await trio.sleep(1)
            yield self.topic
            nursery.cancel_scope.cancel()

    async def _follow(self) -> None:
        with self.announcements.following(BTC, self.follower):
            await self.follower.run()

    @property
    def candles(self) -> list[Candle]:
        return candles_of(self.topic.replica)

    def is_whole(self) -> bool:
        return self.topic.replica.snapshot() == self.server.series[BTC].snapshot()


def state_of(topic: Topic) -> str:
    return topic.state.value


# --- commits


async def test_it_shows_what_is_committed_at_once_and_reads_nothing(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2), forming(minute(3))) as topic:
        assert world.follower.reads == 1
        assert state_of(topic) == "live"
        subscriber = topic.subscribe(outbox := Outbox(unheard))
        for number in range(3, 20):
            await world.owner.commits(candle(minute(number)), forming(minute(number + 1)))
            assert world.is_whole()
            assert outbox.take() == [subscriber]
            await trio.sleep(1)
        assert state_of(topic) == "live"
        assert world.follower.reads == 1


async def test_a_series_that_is_not_there_yet_is_waited_for(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows() as topic:
        await trio.sleep(10)
        assert topic.failure == "its owner has not begun it yet"
        assert state_of(topic) == "syncing"
        asked = world.server.calls["read"]
        await world.owner.begins(*minutes(0, 99))
        await trio.sleep(0.1)
        assert world.is_whole()
        assert topic.failure == ""
        await trio.sleep(1)
        assert state_of(topic) == "live"
        assert world.server.calls["read"] == asked + 1


async def test_a_commit_too_large_to_be_announced_is_read_at_once(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)):
        await world.owner.commits(*minutes(3, 40))
        await trio.sleep(0.01)
        assert world.is_whole()


async def test_a_commit_that_was_not_heard_shows_in_the_next_or_in_a_report(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)):
        world.node.misses.add("committed")
        await world.owner.commits(candle(minute(3)))
        world.node.misses.clear()
        await world.owner.commits(candle(minute(4)))
        await trio.sleep(0.01)
        assert world.is_whole()
        world.node.misses.add("committed")
        await world.owner.commits(candle(minute(5)))
        await trio.sleep(0.51)
        assert world.is_whole()


async def test_what_is_committed_while_it_reads_is_not_lost(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)):
        world.node.latency = 1.0
        await world.owner.commits(*minutes(3, 40))
        for made in minutes(41, 50):
            await trio.sleep(0.09)
            await world.owner.commits(made)
        assert len(world.candles) == 3, "the answer is still under way"
        await trio.sleep(0.2)
        assert world.is_whole()
        assert world.follower.reads == 2


async def test_announcements_that_come_late_take_nothing_back(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        world.node.announcement_delay = 1.0
        for made in minutes(3, 30):
            await world.owner.commits(made)
            await trio.sleep(0.05)
        await world.owner.commits(*minutes(31, 60))
        shown: list[int] = []
        for _ in range(60):
            shown.append(topic.replica.revision)
            await trio.sleep(0.05)
        assert shown == sorted(shown)
        assert world.is_whole()


# --- what clients are told


async def test_it_is_stale_when_the_owner_has_been_silent_for_a_lease(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2), reports=False) as topic:
        assert state_of(topic) == "stale"
        for _ in range(3):
            await world.owner.reports()
            assert state_of(topic) == "live"
            await trio.sleep(LEASE - 0.01)
            assert state_of(topic) == "live"
            await trio.sleep(0.02)
            assert state_of(topic) == "stale"


async def test_it_tells_what_the_owner_tells(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        for state in (State.SYNCING, State.STALE, State.LIVE):
            world.owner.state = state
            await trio.sleep(0.51)
            assert topic.state is state
        await world.owner.gives_up()
        assert state_of(topic) == "stale", "nobody keeps it now"
        await world.owner.claims()


async def test_another_interval_than_the_owner_has_is_syncing(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)):
        five = Series("BTCUSDT", Interval.M5)
        topic = Hub(10).open(five)
        with world.announcements.following(five, Follower(topic, world.node, fresh_for=LEASE)):
            await trio.sleep(1)
            assert state_of(topic) == "syncing", "the owner is there, and hears that it is wanted"


async def test_when_it_ends_nobody_keeps_the_series(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        world.node.cut_off = True
        await trio.sleep(1)
        assert topic.failure
    assert state_of(topic) == "stale"
    assert topic.failure == ""
    assert len(topic.replica) == 3


# --- a store that is not there


async def test_while_the_connection_is_lost_it_is_syncing_then_stale_and_then_it_catches_up(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        world.node.cut_off = True
        assert state_of(topic) == "syncing"
        assert topic.failure == "the node is cut off"
        await world.owner.commits(candle(minute(3)))
        await trio.sleep(LEASE + 0.01)
        assert state_of(topic) == "stale"
        assert len(world.candles) == 3
        world.node.cut_off = False
        await trio.sleep(0.51)
        assert world.is_whole()
        assert (state_of(topic), topic.failure) == ("live", "")


async def test_what_has_not_changed_meanwhile_is_not_read(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        reads = world.server.calls["read"]
        for _ in range(3):
            world.node.cut_off = True
            await trio.sleep(0.1)
            world.node.cut_off = False
            await trio.sleep(0.6)
            assert state_of(topic) == "live"
        assert world.server.calls["read"] == reads


async def test_a_store_that_cannot_be_read_is_asked_ever_more_seldom(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        world.node.lose_answers.update({"read", "position"})
        asked = world.node.calls["read"]
        await world.owner.commits(*minutes(3, 30))
        await trio.sleep(0.01)
        gaps: list[float] = []
        while len(gaps) < 7:
            started, before = trio.current_time(), world.node.calls["read"]
            while world.node.calls["read"] == before:  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.01)
            gaps.append(round(trio.current_time() - started, 1))
        assert gaps == [0.2, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
        assert asked < before
        assert state_of(topic) == "syncing"
        assert topic.failure == "the answer to read was lost"
        world.node.lose_answers.clear()
        await trio.sleep(4.1)
        assert world.is_whole()
        assert (state_of(topic), topic.failure) == ("live", "")
        world.node.lose_answers.update({"read", "position"})
        await world.owner.commits(*minutes(31, 60))
        await trio.sleep(0.01)
        world.node.lose_answers.clear()
        await trio.sleep(0.3)
        assert world.is_whole(), "the next trouble begins with short pauses"


async def test_a_store_that_does_not_answer_is_given_five_seconds(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2), hears=False) as topic:
        world.node.frozen = True
        world.announcements.listening()
        await trio.sleep(4.9)
        assert topic.failure == ""
        await trio.sleep(0.2)
        assert topic.failure == "the store did not answer within 5 s"
        world.node.frozen = False
        await trio.sleep(1)
        assert topic.failure == ""


async def test_where_nothing_is_heard_the_series_is_read_all_the_same(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2), hears=False) as topic:
        assert world.is_whole()
        assert state_of(topic) == "stale"
        assert topic.failure == "the store's announcements are not heard yet"


# --- a store that has fallen back


async def test_a_store_that_falls_back_takes_nothing_back(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        old = world.server.snapshot()
        await world.owner.commits(*minutes(3, 9))
        world.server.rollback(old)
        world.server.down = True
        world.server.down = False
        await trio.sleep(1)
        assert world.candles == minutes(0, 9)
        assert state_of(topic) == "syncing"
        served = topic.replica.position
        await world.owner.begins(*minutes(0, 9))
        await trio.sleep(1)
        assert world.is_whole()
        assert world.candles == minutes(0, 9)
        assert not topic.replica.can_resume(served)
        assert state_of(topic) == "live"


async def test_of_an_owner_that_knows_no_better_it_is_taken_in_the_end(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2)) as topic:
        old, known = world.server.snapshot(), world.owner.replica.snapshot()
        await world.owner.commits(*minutes(3, 9))
        world.server.rollback(old)
        world.owner.replica.restore(known)
        world.server.down = True
        world.server.down = False
        reads = world.follower.reads
        await trio.sleep(29)
        assert world.candles == minutes(0, 9)
        assert world.follower.reads - reads < 10
        await trio.sleep(5)
        assert world.candles == minutes(0, 2)
        await trio.sleep(1)
        assert state_of(topic) == "live"


async def test_also_when_nobody_owns_the_symbol(autojump_clock: MockClock) -> None:
    world = World()
    async with world.follows(*minutes(0, 2), reports=False):
        old = world.server.snapshot()
        await world.owner.commits(*minutes(3, 9))
        world.server.rollback(old)
        world.server.down = True
        world.server.down = False
        await trio.sleep(35)
        assert world.candles == minutes(0, 2)


# --- cancellation


async def test_cancelled_at_any_time_it_shows_only_what_the_store_had(autojump_clock: MockClock) -> None:
    for step in range(60):
        world = World()
        with trio.move_on_after(step * 0.05):
            async with world.follows(*minutes(0, 2)):
                world.node.latency = 0.3
                for made in minutes(3, 9):
                    await world.owner.commits(made)
                    await trio.sleep(0.2)
        topic = world.topic
        assert state_of(topic) == "stale"
        assert world.candles == minutes(0, len(world.candles) - 1)
