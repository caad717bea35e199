"""Several nodes with one symbol over one shared store, in one process; who owns it, the test decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from candlesync.announcements import Announcements
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Snapshot, progress
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import Rules
from candlesync.errors import Fenced, Leased, StoreUnavailable
from candlesync.hub import Hub, Topic
from candlesync.inspection import InspectionSettings
from candlesync.ownership import Tenure
from candlesync.symbol import Means, SymbolTask
from tests.builders import BTC, candles_of
from tests.shared_store import NodeStore, SharedMemory
from tests.stand_ins import Feeds, no_audit
from tests.upstream import Upstream

LEASE = 2.0


class Turns:
    """An `Ownership` whose turns the test gives: it claims when it has one, and beats four times a lease."""

    def __init__(self, store: NodeStore) -> None:
        self.turn = trio.Event()
        self.tenure: Tenure | None = None
        self.given_up: list[tuple[float, Tenure]] = []
        self.state_changes = 0
        self.beats = True
        self._store = store
        self._report: Callable[[], dict[Interval, SeriesReport]] = dict
        self._due = trio.Event()

    async def obtain(self, symbol: str, report: Callable[[], dict[Interval, SeriesReport]]) -> Tenure:
        while True:
            await self.turn.wait()
            try:
                token = await self._store.claim(symbol)
            except (Leased, StoreUnavailable):
                await trio.sleep(0.1)
            else:
                self.tenure, self._report = Tenure(symbol, token), report
                return self.tenure

    def state_changed(self, tenure: Tenure) -> None:
        assert tenure is self.tenure, "of a tenure that was not given up"
        self.state_changes += 1
        self._due.set()

    async def give_up(self, tenure: Tenure) -> None:
        assert tenure is self.tenure, "once each"
        self.tenure = None
        self.given_up.append((trio.current_time(), tenure))
        with suppress(Fenced, StoreUnavailable):
            await self._store.release(tenure.symbol, Release(self._store.node), token=tenure.token)

    async def beat(self) -> None:
        while True:
            tenure = self.tenure
            if tenure is not None and self.beats:
                try:
                    await self._store.renew(tenure.symbol, Report(self._store.node, self._report()), token=tenure.token)
                except Fenced as error:
                    tenure.end(str(error))
                except StoreUnavailable:
                    pass
            with trio.move_on_after(LEASE / 4):
                await self._due.wait()
            self._due = trio.Event()


class Node:
    """One node: what a process has of one symbol."""

    def __init__(self, world: Nodes, identity: str, *intervals: Interval) -> None:
        self.world = world
        self.store = world.server.node(identity)
        self.hub = Hub(world.server.history)
        self.feeds = Feeds()
        self.announcements = Announcements(identity, LEASE)
        self.turns = Turns(self.store)
        self.means = Means(
            hub=self.hub,
            store=self.store,
            klines=world.upstream,
            feeds=self.feeds,
            rules=Rules(history=world.server.history),
            inspection=InspectionSettings(silence=1e6, fills_first=1e6),
            ownership=self.turns,
            announcements=self.announcements,
            audit=no_audit(),
        )
        self.task = SymbolTask("BTCUSDT", set(intervals or (Interval.M1,)), self.means)
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.store.listen, self.announcements)
                nursery.start_soon(self.turns.beat)
                nursery.start_soon(self._watch)
                await self.task.run()

    def kill(self) -> None:
        """As SIGKILL: nothing of it gets through any more."""
        self.store.cut_off = True
        self.scope.cancel()

    async def owns(self) -> None:
        """Let it own the symbol until `yields`, and wait until it does, and the series is live."""
        self.turns.turn.set()
        with trio.fail_after(30):
            while self.task.tenure is None or self.state != "live":  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.01)

    def yields(self, reason: str = "its turn is over") -> None:
        """Take the symbol from it."""
        self.turns.turn = trio.Event()
        assert self.turns.tenure is not None
        self.turns.tenure.end(reason)

    @property
    def topic(self) -> Topic:
        topic = self.hub.get(BTC)
        assert topic is not None
        return topic

    @property
    def state(self) -> str:
        return self.topic.state.value

    @property
    def candles(self) -> list[Candle]:
        return candles_of(self.topic.replica)

    async def _watch(self) -> None:
        """What is shown stood in the store, and never goes back."""
        topic, seen, position = self.hub.open(BTC), (0, False, 0), Position("", 0)
        while True:
            tail = topic.replica.tail
            if tail is not None:
                assert topic.replica.snapshot() == self.world.truth[topic.replica.position]
                assert progress(tail) >= seen
                assert topic.replica.life != position.life or topic.replica.revision >= position.revision
                seen, position = progress(tail), topic.replica.position
            await topic.changed()


class Nodes:
    """The nodes, the store that they share, and the exchange."""

    def __init__(self, candles: Sequence[Candle]) -> None:
        self.server = Server(1000, LEASE)
        self.truth = self.server.truth
        self.upstream = Upstream(candles)
        self.nodes: list[Node] = []

    @asynccontextmanager
    async def running(self, count: int = 2) -> AsyncIterator[list[Node]]:
        """That many nodes; none has a turn yet."""
        self.nodes = [Node(self, f"node{number}") for number in range(count)]
        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(node.run)
            await trio.sleep(0.1)
            yield self.nodes
            nursery.cancel_scope.cancel()

    def show(self, *candles: Candle) -> None:
        """The exchange has these now, and shows them to whoever is connected."""
        for shown in candles:
            known = [each for each in self.upstream.candles if each.open_time < shown.open_time]
            self.upstream.candles = [*known, shown]
            for node in self.nodes:
                if Interval.M1 in node.feeds.followed:
                    node.feeds.show(BTC, shown)

    @property
    def connections(self) -> int:
        """How many nodes hold a connection to the exchange."""
        return sum(node.feeds.sink is not None for node in self.nodes)


class Server(SharedMemory):
    """A server that remembers all that it ever had."""

    def __init__(self, history: int, lease: float) -> None:
        super().__init__(history, lease)
        self.truth: dict[Position, Snapshot] = {}

    def commit(self, series: Series, commit: Commit, token: int) -> None:
        super().commit(series, commit, token)
        self.truth[commit.position] = self.series[series].snapshot()
