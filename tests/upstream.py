"""A small REST and a store with faults, and a synchronizer that runs between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.core.sync import Rules, State
from candlesync.errors import StoreUnavailable, UpstreamUnavailable
from candlesync.hub import Topic
from candlesync.store.memory import MemoryStore
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, answer, candles_of


class Upstream:
    """REST over a list of candles: what the exchange has. Keeps its promise to answer or fail within the patience."""

    def __init__(self, candles: Sequence[Candle], *, checkpoints: int = 1) -> None:
        self.candles = list(candles)
        self.delay = 0.0
        """Seconds that an answer takes; what it says is what was true before them."""
        self.failure: Exception | None = None
        self.behind = 0
        """How many of the newest candles it does not show yet."""
        self.asked_at: list[float] = []
        self.questions: list[tuple[Series, int | None, float]] = []
        """Of which series, from which open time or how many of the newest, and with what patience."""
        self._checkpoints = checkpoints

    async def klines(
        self, series: Series, *, start_time: int | None = None, limit: int = 1000, patience: float = 30.0
    ) -> tuple[Candle, ...]:
        """As `Rest.klines`."""
        self.questions.append((series, start_time, patience))
        known = self.candles[: len(self.candles) - self.behind]
        rows = [row for row in known if start_time is None or row.open_time >= start_time]
        return await self._answer(rows[:limit], patience)

    async def newest(self, series: Series, count: int, *, patience: float = 30.0) -> tuple[Candle, ...]:
        """As `Rest.newest`."""
        self.questions.append((series, count, patience))
        return await self._answer(self.candles[: len(self.candles) - self.behind][-count:], patience)

    async def _answer(self, rows: Sequence[Candle], patience: float) -> tuple[Candle, ...]:
        self.asked_at.append(trio.current_time())
        failure = self.failure
        for _ in range(self._checkpoints):
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(patience) as scope:
            await trio.sleep(self.delay)
        if scope.cancelled_caught:
            raise UpstreamUnavailable(f"no usable answer within {patience:g} s")
        if failure is not None:
            raise failure
        return answer(rows)


class TroubledStore(MemoryStore):
    """A memory store that is a while away: more awaits in each call, and commits whose outcome stays unknown."""

    commit_now = None  # type: ignore[assignment]  # what is away cannot be asked without waiting: no `PromptStore`

    def __init__(self, history: int, *, checkpoints: int = 1) -> None:
        super().__init__(history)
        self.commits: list[Commit] = []
        """What was committed, in order."""
        self.attempts: list[int] = []
        """The revisions that were to be made, in order, whatever became of it."""
        self.told = 0
        """How many commits have returned to their caller."""
        self.hang_before: set[int] = set()
        """The commits that make these revisions hang for ever and do not happen; each once."""
        self.hang_after: set[int] = set()
        """The commits that make these revisions happen, and then hang for ever; each once."""
        self.lose_before: set[int] = set()
        """The commits that make these revisions do not happen, and nobody is told so; each once."""
        self.lose_after: set[int] = set()
        """The commits that make these revisions happen, and nobody is told so; each once."""
        self.delay = 0.0
        """Seconds that a commit takes before it happens."""
        self.unreadable = False
        self._checkpoints = checkpoints

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        await self._travel()
        if self.unreadable:
            await trio.sleep_forever()
        snapshot = await super().read(series)
        await self._travel()
        return snapshot

    async def position(self, series: Series) -> Position | None:
        """See `Store.position`."""
        await self._travel()
        if self.unreadable:
            await trio.sleep_forever()
        position = await super().position(series)
        await self._travel()
        return position

    def fall_back(self, snapshot: Snapshot | None) -> None:
        """An old copy of the store is promoted, or an empty one."""
        self._series.clear()
        if snapshot is not None:
            self._series[BTC] = Replica(BTC, self._history)
            self._series[BTC].restore(snapshot)

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        self.attempts.append(commit.revision)
        await self._travel()
        if commit.revision in self.hang_before:
            self.hang_before.remove(commit.revision)
            await trio.sleep_forever()
        if commit.revision in self.lose_before:
            self.lose_before.remove(commit.revision)
            raise StoreUnavailable("the connection was lost")
        if self.delay:
            await trio.sleep(self.delay)
        await super().commit(series, commit, token=token)
        self.commits.append(commit)
        if commit.revision in self.lose_after:
            self.lose_after.remove(commit.revision)
            await self._travel()
            raise StoreUnavailable("the connection was lost")
        if commit.revision in self.hang_after:
            self.hang_after.remove(commit.revision)
            await trio.sleep_forever()
        await self._travel()
        self.told += 1

    async def _travel(self) -> None:
        for _ in range(self._checkpoints):
            await trio.lowlevel.checkpoint()


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
