"""The synchronizer: its critical section cancelled at every await, and everything that can come in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from candlesync.core.candle import Candle
from candlesync.core.replica import Commit, Entry, Snapshot
from candlesync.core.sync import Rules, State
from candlesync.errors import Fenced, UnknownSymbol, UpstreamUnavailable
from candlesync.hub import Outbox, Topic
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, candle, candles_of, flat, forming, minute, minutes
from tests.upstream import TroubledStore, Upstream

RULES = Rules(history=20)


class WatchedTopic(Topic):
    """A topic that remembers what was published and which states were told."""

    def __init__(self) -> None:
        super().__init__(BTC, RULES.history)
        self.published_commits: list[Commit] = []
        self.states: list[State] = []

    def publish(self, commit: Commit) -> list[Entry]:
        entries = super().publish(commit)
        self.published_commits.append(commit)
        return entries

    def set_state(self, state: State) -> None:
        super().set_state(state)
        if not self.states or state is not self.states[-1]:
            self.states.append(state)


class World:
    """A store, an upstream and a topic; a synchronizer runs over them until `running` is left."""

    def __init__(self, candles: Sequence[Candle], *, checkpoints: int = 1) -> None:
        self.upstream = Upstream(candles, checkpoints=checkpoints)
        self.store = TroubledStore(RULES.history, checkpoints=checkpoints)
        self.topic = WatchedTopic()
        self.token = 0
        self.synchronizer: Synchronizer

    async def make(self) -> Synchronizer:
        """Take the symbol over."""
        self.token = await self.store.claim("BTCUSDT")
        self.synchronizer = Synchronizer(self.topic, self.store, self.upstream, RULES, token=self.token)
        return self.synchronizer

    @asynccontextmanager
    async def running(self, *, connected: bool = True) -> AsyncIterator[Synchronizer]:
        synchronizer = await self.make()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(synchronizer.run)
            if connected:
                synchronizer.connected()
                await trio.sleep(0.1)
            yield synchronizer
            nursery.cancel_scope.cancel()

    async def stored(self) -> Snapshot:
        snapshot = await self.store.read(BTC)
        assert snapshot is not None
        return snapshot

    @property
    def candles(self) -> list[Candle]:
        """What clients see."""
        return candles_of(self.topic.replica)

    async def check_store_and_topic_agree(self) -> None:
        assert await self.stored() == self.topic.replica.snapshot()


# --- cancelled at every await


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when a task has come to its n-th await, and is waiting there."""

    def __init__(self, name: str, step: int, scope: trio.CancelScope) -> None:
        self._name = name
        self._scope = scope
        self._left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self._name:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()

    @property
    def was_reached(self) -> bool:
        return self._left <= 0


TRUTH = [*minutes(0, 7), *minutes(10, 12)]
"""What the exchange has in the end: minutes 8 and 9 are an outage."""
WHOLE = [*minutes(0, 7), flat(minute(8), "37007.00000000"), flat(minute(9), "37007.00000000"), *minutes(10, 11)]


async def eventful(world: World) -> None:
    """Everything that can happen to a series, in two minutes."""
    synchronizer, upstream = world.synchronizer, world.upstream

    async def show(*frames: Candle) -> None:
        for frame in frames:
            synchronizer.frame(frame)
            upstream.candles = [row for row in TRUTH if row.open_time <= frame.open_time]
            await trio.sleep(0.3)

    upstream.candles = minutes(0, 2)
    await trio.sleep(1)
    synchronizer.connected()
    await trio.sleep(1)
    await show(forming(minute(2), trades=11), *minutes(2, 2), forming(minute(3)), *minutes(3, 3))
    upstream.behind = 1
    await show(forming(minute(5)))  # the close of minute 4 is lost, and REST is behind
    upstream.behind = 0
    await trio.sleep(2)
    upstream.failure = UpstreamUnavailable("down")
    synchronizer.lost()
    upstream.candles = minutes(0, 6)
    synchronizer.connected()
    await trio.sleep(2)
    upstream.failure = None
    await trio.sleep(20)
    await show(forming(minute(7)), *minutes(7, 7))
    await show(forming(minute(10)))  # after an outage
    await trio.sleep(20)
    await show(*minutes(10, 10), forming(minute(11)))


async def heal(world: World) -> None:
    """A restarted task on the same store and topic brings everything to the truth."""
    world.upstream.candles = TRUTH
    world.upstream.failure = None
    world.upstream.behind = 0
    async with world.running():
        await trio.sleep(60)
        assert world.topic.state is State.LIVE
        assert world.candles[:-1] == WHOLE
        await world.check_store_and_topic_agree()


async def cancellable_run(world: World, scope: trio.CancelScope, story: trio.CancelScope) -> None:
    with scope:
        await world.synchronizer.run()
    story.cancel()  # a feed tells nothing to a synchronizer that is gone


def check_continuous(candles: Sequence[Candle]) -> None:
    for before, after in pairwise(candles):
        assert after.open_time == before.open_time + 60_000
        assert before.closed


async def cancel_at_each_await(check: Callable[[World], Awaitable[None]], *, hang_after: int = 0) -> int:
    """Play `eventful` again and again, cancelled at one await later each time; how many there were."""
    step = 0
    while True:
        step += 1
        world = World([], checkpoints=2)
        world.store.hang_after.add(hang_after)
        await world.make()
        scope = trio.CancelScope()
        cancel = CancelAtStep(f"{__name__}.cancellable_run", step, scope)
        trio.lowlevel.add_instrument(cancel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancellable_run, world, scope, nursery.cancel_scope)
            await eventful(world)
            scope.cancel()
        trio.lowlevel.remove_instrument(cancel)
        assert world.topic.state is State.STALE
        check_continuous(world.candles)
        await check(world)
        await heal(world)
        if not nursery.cancel_scope.cancelled_caught:
            return step


async def test_cancelled_at_any_await_commit_and_publish_are_one_act(autojump_clock: MockClock) -> None:
    """Invariant 2: both or neither, wherever it is cancelled; and a restart heals the rest."""

    async def check(world: World) -> None:
        assert world.topic.published_commits == world.store.commits
        if world.store.commits:
            await world.check_store_and_topic_agree()

    awaits = await cancel_at_each_await(check)
    assert awaits > 150, "the story is long enough"


async def test_cancelled_at_any_await_while_an_outcome_is_unknown_a_restart_settles_it(
    autojump_clock: MockClock,
) -> None:
    """The second commit happens, but its answer never comes. Cancelled before that is read, it stays unpublished."""

    unpublished = 0

    async def check(world: World) -> None:
        nonlocal unpublished
        published = world.topic.published_commits
        assert all(made in world.store.commits for made in published), "nothing is published without its commit"
        if world.store.commits:
            stored = await world.stored()
            behind = stored.revision - world.topic.replica.revision
            assert behind in (0, 1)
            unpublished += behind

    await cancel_at_each_await(check, hang_after=2)
    assert unpublished > 0, "it was cancelled there too"
