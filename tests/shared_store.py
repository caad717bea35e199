"""A shared store in memory, with faults, in Trio's time: what a server and the nodes around it are to each other.

`SharedMemory` is the server, and `SharedMemory.node` makes a node's way to it, which is a ``SharedStore``. Faults of
the server are on the server, faults of one node's connection or process are on the node.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TypeVar

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.departure import Found, Stop
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.core.report import Release, Report
from candlesync.errors import Fenced, Leased, StoreUnavailable
from candlesync.store.base import Audience
from tests.shared_departures import SharedDepartureMemory

Answer = TypeVar("Answer")

Announcement = tuple[str, Callable[[Audience], None]]
"""Its kind (the name of the `Audience`'s method), and the call that tells it."""


class Lease(msgspec.Struct, frozen=True):
    """Who holds a symbol, and until when in Trio's time."""

    owner: str
    until: float


class Presence(msgspec.Struct, frozen=True):
    """What a node said of itself, and until when it counts as there."""

    member: Member
    until: float


class Saved(msgspec.Struct, frozen=True):
    """All that a server had at some time."""

    series: dict[Series, Snapshot]
    tokens: dict[str, int]
    leases: dict[str, Lease]
    presences: dict[str, Presence]


class SharedMemory:
    """The server. What it has is public, for tests to look at."""

    def __init__(self, history: int, lease: float = 2.0) -> None:
        self.history = history
        self.lease = lease
        """Seconds."""
        self.announced = 16
        """A commit of more candles is announced as one that is to be read."""
        self.series: dict[Series, Replica] = {}
        self.tokens: dict[str, int] = {}
        """The current fencing token of each symbol; none when there never was one, or it was released."""
        self.leases: dict[str, Lease] = {}
        """Those that have ended stay here until the next claim."""
        self.presences: dict[str, Presence] = {}
        self.departures = SharedDepartureMemory(lease)
        self.nodes: dict[str, NodeStore] = {}
        self.calls: Counter[str] = Counter()
        """Calls that were sent, by the method's name, whatever became of them."""
        # Never set back, not even by a wipe or a rollback: no token is used twice.
        self._next_token = count(1)
        self._down = False

    def node(self, identity: str) -> NodeStore:
        """A new node's way to this server."""
        assert identity not in self.nodes, "an identity is never used twice"
        made = self.nodes[identity] = NodeStore(self, identity)
        return made

    @property
    def down(self) -> bool:
        """While true every call of every node fails, and every listener is deaf. What the server has stays."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        for node in self.nodes.values():
            node._connection_changed()

    def owner(self, symbol: str) -> str:
        """The node whose lease stands; empty when there is none."""
        lease = self.leases.get(symbol)
        return lease.owner if lease is not None and lease.until > trio.current_time() else ""

    def owners(self) -> dict[str, str]:
        """The owner of each symbol that has one."""
        return {symbol: owner for symbol in sorted(self.leases) if (owner := self.owner(symbol))}

    def wipe(self) -> None:
        """Everything is lost; connections stay."""
        self.departures = SharedDepartureMemory(self.lease)
        self.rollback(Saved({}, {}, {}, {}))

    def snapshot(self) -> Saved:
        """What an old replica may have; see `rollback`."""
        series = {series: replica.snapshot() for series, replica in self.series.items()}
        return Saved(series, dict(self.tokens), dict(self.leases), dict(self.presences))

    def rollback(self, saved: Saved) -> None:
        """An old replica is promoted: everything is as it was then, fencing tokens too. Connections stay."""
        self.series = {}
        for series, snapshot in saved.series.items():
            self.series[series] = Replica(series, self.history)
            self.series[series].restore(snapshot)
        self.tokens = dict(saved.tokens)
        self.leases = dict(saved.leases)
        self.presences = dict(saved.presences)

    # --- what the scripts on the server do: none of it waits

    def claim(self, node: str, symbol: str) -> int:
        """See `Store.claim`."""
        now = trio.current_time()
        lease = self.leases.get(symbol)
        if lease is not None and lease.owner != node and lease.until > now:
            raise Leased(symbol, lease.owner, min(lease.until - now, self.lease))
        self.leases[symbol] = Lease(node, now + self.lease)
        self.tokens[symbol] = token = next(self._next_token)
        return token

    def commit(self, series: Series, commit: Commit, token: int) -> None:
        """See `Store.commit`."""
        self.check(series.symbol, token)
        kept = self.series.get(series) or Replica(series, self.history)
        kept.apply(commit)
        self.series[series] = kept
        self._made(series, commit, token)
        if len(commit.candles) > self.announced:
            position = kept.position
            self._announce("moved", lambda audience: audience.moved(series, position))
        else:
            self._announce("committed", lambda audience: audience.committed(series, commit))

    def renew(self, node: str, symbol: str, report: Report, token: int) -> None:
        """See `SharedStore.renew`."""
        self.check(symbol, token)
        self.leases[symbol] = Lease(node, trio.current_time() + self.lease)
        self._announce("reported", lambda audience: audience.reported(symbol, report))

    def release(self, symbol: str, release: Release, token: int) -> None:
        """See `SharedStore.release`."""
        self.check(symbol, token)
        del self.tokens[symbol]
        self.leases.pop(symbol, None)
        self._announce("released", lambda audience: audience.released(symbol, release))

    def attend(self, node: str, member: Member) -> dict[str, Member]:
        """See `SharedStore.attend`."""
        now = trio.current_time()
        self.presences = {name: there for name, there in self.presences.items() if there.until > now}
        known = self.presences.get(node)
        self.presences[node] = Presence(member, now + self.lease)
        if known is None or known.member != member:
            self._announce("assembled", lambda audience: audience.assembled())
        return {name: there.member for name, there in self.presences.items()}

    def leave(self, node: str) -> None:
        """See `SharedStore.leave`."""
        there = self.presences.pop(node, None)
        if there is not None and there.until > trio.current_time():
            self._announce("assembled", lambda audience: audience.assembled())

    def check(self, symbol: str, token: int) -> None:
        """Raise `Fenced` for any but the symbol's current token."""
        if token != self.tokens.get(symbol):
            raise Fenced(f"{symbol}: token {token} is not the current one")

    def _made(self, series: Series, commit: Commit, token: int) -> None:
        """A commit stands, and nobody has been told of it: for who keeps books."""

    def _announce(self, kind: str, tell: Callable[[Audience], None]) -> None:
        for node in self.nodes.values():
            node._hear((kind, tell))


class NodeStore:
    """One node's way to the server: a ``SharedStore`` with faults of its own."""

    def __init__(self, server: SharedMemory, identity: str) -> None:
        self.node = identity
        self.lease = server.lease
        self.calls: Counter[str] = Counter()
        """As `SharedMemory.calls`, of this node alone."""
        self.latency = 0.0
        """Seconds that each call takes, half of them before it happens."""
        self.patience = 0.0
        """Seconds after which a call fails that cannot reach the server."""
        self.lose_answers: set[str] = set()
        """The methods whose answers are lost: the call happens, and raises `StoreUnavailable`."""
        self.misses: set[str] = set()
        """The kinds of announcement, named as the `Audience`'s methods, that this node does not hear nor knows of."""
        self.announcement_delay = 0.0
        """Seconds after which an announcement is heard; with none, before the call returns that made it."""
        self._server = server
        self._cut_off = False
        self._deafened = False
        self._frozen = False
        self._thawed = trio.Event()
        self._audience: Audience | None = None
        self._failure: Exception | None = None
        """What the audience raised: a matter of this node's listener, not of whoever made the announcement."""
        self._is_deaf = True
        self._unheard: deque[tuple[float, Announcement]] = deque()
        """What is on its way to the audience, each with the time at which it arrives."""
        self._on_its_way = trio.Event()

    # --- faults

    @property
    def cut_off(self) -> bool:
        """While true this node's calls fail, and its listener is deaf."""
        return self._cut_off

    @cut_off.setter
    def cut_off(self, cut_off: bool) -> None:
        self._cut_off = cut_off
        self._connection_changed()

    @property
    def deafened(self) -> bool:
        """While true this node's listener alone has lost its connection."""
        return self._deafened

    @deafened.setter
    def deafened(self, deafened: bool) -> None:
        self._deafened = deafened
        self._connection_changed()

    @property
    def frozen(self) -> bool:
        """While true this node's calls hang, those that happened do not return, and announcements wait in a buffer.

        As of a process that is stopped, but that the rest of the node's tasks go on.
        """
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        if frozen and not self._frozen:
            self._thawed = trio.Event()
        self._frozen = frozen
        if not frozen:
            self._thawed.set()

    # --- the store

    async def claim(self, symbol: str) -> int:
        """See `Store.claim`."""
        return await self._call("claim", lambda: self._server.claim(self.node, symbol))

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""

        def read() -> Snapshot | None:
            kept = self._server.series.get(series)
            return None if kept is None else kept.snapshot()

        return await self._call("read", read)

    async def position(self, series: Series) -> Position | None:
        """See `Store.position`."""

        def position() -> Position | None:
            kept = self._server.series.get(series)
            return None if kept is None else kept.position

        return await self._call("position", position)

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        await self._call("commit", lambda: self._server.commit(series, commit, token))

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`. The series is kept."""
        await self._call("forget", lambda: self._server.check(series.symbol, token))

    async def renew(self, symbol: str, report: Report, *, token: int) -> None:
        """See `SharedStore.renew`."""
        await self._call("renew", lambda: self._server.renew(self.node, symbol, report, token))

    async def release(self, symbol: str, release: Release, *, token: int) -> None:
        """See `SharedStore.release`."""
        await self._call("release", lambda: self._server.release(symbol, release, token))

    async def attend(self, member: Member) -> Mapping[str, Member]:
        """See `SharedStore.attend`."""
        return await self._call("attend", lambda: self._server.attend(self.node, member))

    async def leave(self) -> None:
        """See `SharedStore.leave`."""
        await self._call("leave", lambda: self._server.leave(self.node))

    async def keep_departures(self, present: Sequence[Stop], departed: Sequence[Stop], *, ends: bool = False) -> int:
        """See `SharedStore.keep_departures`."""
        departures = self._server.departures
        return await self._call("keep_departures", lambda: departures.keep(self.node, present, departed, ends=ends))

    async def take_departures(self, keys: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        """See `SharedStore.take_departures`."""
        departures = self._server.departures
        return await self._call("take_departures", lambda: departures.take(self.node, keys, asked_at))

    async def listen(
        self, audience: Audience, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `SharedStore.listen`."""
        assert self._audience is None, "a node listens once"
        self._audience = audience
        self._is_deaf = True
        try:
            task_status.started()
            await trio.lowlevel.checkpoint()
            if self._can_hear:
                self._connection_changed()
            else:
                audience.deaf(self._trouble)
            while True:
                await self._deliver()
        finally:
            self._audience = None
            self._unheard.clear()

    async def _call(self, name: str, act: Callable[[], Answer]) -> Answer:
        self.calls[name] += 1
        self._server.calls[name] += 1
        await self._travel()
        if not self._is_reachable:
            await trio.sleep(self.patience)
            raise StoreUnavailable(self._trouble)
        answer = act()
        if self.latency or self._frozen:
            await self._travel()
        if name in self.lose_answers or not self._is_reachable:
            raise StoreUnavailable(f"the answer to {name} was lost")
        return answer

    async def _travel(self) -> None:
        # Like the memory store's, the only checkpoint of a call without latency is before it happens.
        await trio.sleep(self.latency / 2)
        while self._frozen:
            await self._thawed.wait()

    # --- announcements

    @property
    def _is_reachable(self) -> bool:
        return not (self._server.down or self._cut_off)

    @property
    def _can_hear(self) -> bool:
        return self._is_reachable and not self._deafened

    @property
    def _trouble(self) -> str:
        if self._server.down:
            return "the store is down"
        return "the node is cut off" if self._cut_off else "the listener has lost its connection"

    def _connection_changed(self) -> None:
        if self._audience is None or self._is_deaf is not self._can_hear:
            return
        self._is_deaf = not self._can_hear
        if self._is_deaf:
            self._unheard.clear()
            self._audience.deaf(self._trouble)
        else:
            self._audience.listening()

    def _hear(self, announcement: Announcement) -> None:
        if self._audience is None or self._is_deaf or announcement[0] in self.misses:
            return
        if self.announcement_delay or self._frozen or self._unheard:
            self._unheard.append((trio.current_time() + self.announcement_delay, announcement))
            self._on_its_way.set()
        else:
            try:
                announcement[1](self._audience)
            except Exception as failure:  # noqa: BLE001 - raised by `listen`
                self._failure = failure
                self._on_its_way.set()

    async def _deliver(self) -> None:
        """Wait for what cannot be told at once, and tell it when its time has come."""
        if not self._unheard:
            self._on_its_way = trio.Event()
            await self._on_its_way.wait()
        if self._failure is not None:
            raise self._failure
        while self._unheard:
            await trio.sleep_until(self._unheard[0][0])
            while self._frozen:
                await self._thawed.wait()
            # The connection may have been lost while we waited, and what was on its way with it.
            if self._unheard and self._unheard[0][0] <= trio.current_time():
                _, (_, tell) = self._unheard.popleft()
                assert self._audience is not None
                tell(self._audience)
