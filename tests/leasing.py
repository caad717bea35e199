"""Nodes that own symbols over a shared store in memory: of each no more than ownership sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.leases import LeaseSettings, SharedOwnership
from candlesync.ownership import Ownership, Tenure
from tests.shared_store import SharedMemory

LEASE = 2.0
BEAT = LEASE / 4
SYMBOLS = [f"S{number}USDT" for number in range(12)]
SETTINGS = LeaseSettings()


class Node:
    """A process, as far as ownership sees it: a task for each symbol that it follows, which owns it when it may."""

    def __init__(
        self,
        server: SharedMemory,
        identity: str,
        wants: Iterable[str] = SYMBOLS,
        settings: LeaseSettings = SETTINGS,
    ) -> None:
        self.identity = identity
        self.store = server.node(identity)
        self.wants: dict[str, tuple[Interval, ...]] = dict.fromkeys(wants, (Interval.M1,))
        self.kept: Counter[Series] = Counter()
        self.reasons: list[str] = []
        """Why its tenures ended."""
        self.claimed_at: dict[str, float] = {}
        """When each symbol was last obtained."""
        self.closing = 0.0
        """Seconds that it takes to stop owning a symbol."""
        self.state = State.LIVE
        self.leases = SharedOwnership(
            self.store, name=f"name of {identity}", wants=lambda: self.wants, keep=self._keep, settings=settings
        )
        self._server = server
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self.store.listen, self)
                await self._nursery.start(self.leases.run)
                for symbol in self.wants:
                    self._nursery.start_soon(self._follow, symbol)
                task_status.started()

    def follow(self, symbol: str) -> None:
        """One symbol more."""
        self.wants[symbol] = (Interval.M1,)
        assert self._nursery is not None
        self._nursery.start_soon(self._follow, symbol)
        self.leases.wants_changed()

    def kill(self) -> None:
        """Nothing of it comes any more, not even a farewell."""
        self.store.cut_off = True
        self._scope.cancel()

    def stop(self) -> None:
        """Whatever runs is cancelled."""
        self._scope.cancel()

    @property
    def owned(self) -> set[str]:
        """The symbols that it believes to own."""
        return {symbol for symbol, tenure in self.leases.tenures.items() if not tenure.ended.is_set()}

    # --- the audience

    def listening(self) -> None:
        pass

    def deaf(self, reason: str) -> None:
        pass

    def committed(self, series: Series, commit: Commit) -> None:
        pass

    def moved(self, series: Series, position: Position) -> None:
        pass

    def reported(self, symbol: str, report: Report) -> None:
        self.leases.reported(symbol, report)

    def released(self, symbol: str, release: Release) -> None:
        self.leases.released(symbol, release)

    def assembled(self) -> None:
        self.leases.assembled()

    async def _follow(self, symbol: str) -> None:
        ownership: Ownership = self.leases
        while True:
            tenure = await ownership.obtain(symbol, self._report)
            self.claimed_at[symbol] = trio.current_time()
            try:
                await tenure.ended.wait()
                self.reasons.append(tenure.reason)
                await trio.sleep(self.closing)
            finally:
                await ownership.give_up(tenure)

    def _report(self) -> dict[Interval, SeriesReport]:
        return {Interval.M1: SeriesReport(self.state, Position("life0", 1))}

    def _keep(self, series: Series) -> None:
        self.kept[series] += 1


class World:
    """A server and the nodes around it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.server = SharedMemory(10, LEASE)
        self.nodes: dict[str, Node] = {}
        self._nursery = nursery

    async def start(self, identity: str, wants: Iterable[str] = SYMBOLS, settings: LeaseSettings = SETTINGS) -> Node:
        node = self.nodes[identity] = Node(self.server, identity, wants, settings)
        await self._nursery.start(node.run)
        return node

    @property
    def loads(self) -> list[int]:
        """How many symbols each node owns, as the server sees it; ascending."""
        counted = Counter(self.server.owners().values())
        return sorted(counted.values())

    @property
    def owned(self) -> list[str]:
        """What the nodes believe to own, each symbol as often as it has such an owner."""
        return sorted(symbol for node in self.nodes.values() for symbol in node.owned)

    def current(self, symbol: str) -> list[Tenure]:
        """The tenures of a symbol with which a commit would succeed."""
        tenures = (node.leases.tenures.get(symbol) for node in self.nodes.values())
        token = self.server.tokens.get(symbol)
        return [tenure for tenure in tenures if tenure is not None and tenure.token == token]

    async def until_all_owned(self, seconds: float, symbols: Iterable[str] = SYMBOLS) -> float:
        """Wait until the server knows an owner of each; the seconds that it took."""
        started = trio.current_time()
        with trio.fail_after(seconds):
            while not set(symbols) <= self.server.owners().keys():  # noqa: ASYNC110 - looks at what gives no sign
                await trio.sleep(0.01)
        return trio.current_time() - started


@asynccontextmanager
async def a_world(*identities: str) -> AsyncIterator[World]:
    """With some nodes that have shared the symbols among them."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for identity in identities:
            await world.start(identity)
        await trio.sleep(3 if identities else 0)
        yield world
        nursery.cancel_scope.cancel()
