"""The store of several nodes: series in Redis or Valkey, alone or as a cluster.

    commit ─▶ lane (gathers what is ready together) ─▶ one pipeline in a worker thread ─▶ one script a commit
                                                                                                  │ announces
    audience ◀─ Trio, a batch at a time ◀─ one listening thread ◀─ every node of the deployment ◀─┘

A series is one list of candles and one hash of the rest (``store.codec``). The server runs one thing at a time, and
each of our calls is one script on it: so a commit is checked, made and announced with nothing in between, and a read
is of one revision. What breaks the contract the script itself refuses (``commit.lua``), whoever asks.

Candles must not vanish on their own: give the server ``maxmemory-policy noeviction``. Where a part of a series has
vanished all the same, the series counts as one that was never there.

A lease is a key that expires by the server's clock, beside the token that alone decides who may commit. All nodes of a
deployment need the same lease's length.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Literal, TypeVar

import msgspec
import structlog
import trio

from candlesync.core.candle import Series
from candlesync.core.departure import ALIVE, Found, Stop
from candlesync.core.histogram import MOMENTS, Histogram
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.report import Release, Report
from candlesync.errors import Fenced, Leased, NotContinuous, RevisionConflict, StoreUnavailable
from candlesync.store import scripts
from candlesync.store.address import Address
from candlesync.store.announcing import encode_release, encode_report
from candlesync.store.base import Audience
from candlesync.store.cluster import Cluster
from candlesync.store.codec import Keys, decode_position, decode_snapshot, encode_commit
from candlesync.store.departures import RedisDepartures
from candlesync.store.listener import Listener
from candlesync.store.membership import Membership
from candlesync.store.pipeline import Lane, Limits
from candlesync.store.reasons import unexpected
from candlesync.store.scripts import Argument, Call, Script
from candlesync.store.server import OneServer, Servers

_log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

_EXCERPT = 200
"""Bytes of what stands in the store that may stand in a message: anybody may have written it."""
_LARGE = 100
"""Candles of a commit that takes long to encode."""


class RedisSettings(msgspec.Struct, frozen=True):
    """Where the store is, and how to deal with it."""

    address: Address
    prefix: str = "candlesync"
    """Of all keys and channels: deployments that share a server have different ones."""
    lease: float = 2.0
    """Seconds that a lease lasts; the same for all nodes of a deployment."""
    writes: Limits = Limits()
    reads: Limits = Limits(calls=16)
    """Few, since the answer to each is a whole series."""
    leases: Limits = Limits(deadline=1.0)
    """A renewal that waits longer is better tried again, on another connection."""
    departures: Limits = Limits(deadline=1.0, calls=64)
    """A client waits for them, and can do without."""
    threads: int = 16
    """At most: four for each server, and those that were given up but have not ended."""


class RedisStatistics(msgspec.Struct, frozen=True):
    """What the store has done since it was made."""

    commits: int
    refused: int
    """Commits that the script refused."""
    unannounced: int
    """Commits, reports and the like that nobody could be told of."""
    unreadable: int
    """Announcements that were left out because they could not be read."""
    failures: int
    """Calls that got no answer of use: their outcome is unknown to the store."""
    pipelines: int
    largest_group: int
    """Calls in the largest pipeline."""
    waiting: int
    """Calls not answered yet."""
    latencies: Histogram
    """Seconds that each successful commit took, waiting included."""


class RedisStore:
    """The store's contract (see ``store.base``) kept in Redis, ``history`` candles a series.

    It works while `run` does. Every method raises `StoreUnavailable` where the server does not answer usably, in no
    more than the limits' deadline after the call was sent; the call may then have happened or not, and is never sent
    again by itself. A method that is cancelled may have happened unless it had not been sent.
    """

    def __init__(self, settings: RedisSettings, history: int) -> None:
        """Connects at the first call. Raises `ValueError` for an address or a prefix that makes no sense."""
        self.settings = settings
        self.keys = Keys(settings.prefix, settings.address.database)
        self._history = history
        address = settings.address
        self._servers: Servers = Cluster(address) if address.is_cluster else OneServer(address)
        self._limiter = trio.CapacityLimiter(settings.threads)
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._nursery: trio.Nursery | None = None
        self.node = secrets.token_hex(8)
        self.lease = settings.lease
        self._milliseconds = round(settings.lease * 1000)
        self._membership = Membership(self.keys, self.node, self._milliseconds, partial(self._call, "lease"))
        self._departures = RedisDepartures(
            self.keys, self.node, min(settings.lease, ALIVE), partial(self._call, "departure")
        )
        # Each node begins at another server of a cluster; 1.5 leases, so that it is noticed within two.
        self._listener = Listener(self.keys, self._servers.places, 1.5 * settings.lease, start=secrets.randbelow(1000))
        self._numbers = count(1)
        self._one_at_a_time = trio.Lock()
        self._commits = self._refused = self._unannounced = 0
        self._latencies = Histogram(MOMENTS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what the methods are asked for, until cancelled. Whoever waits then gets `StoreUnavailable`."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._servers.close()

    async def claim(self, symbol: str) -> int:
        """See `Store.claim`."""
        keys = (self.keys.fence(symbol), self.keys.lease(symbol))
        arguments = (f"{secrets.randbelow(10**10):010}", self.node, self._milliseconds)
        match await self._call("lease", Call(scripts.CLAIM, keys, arguments)):
            case [b"ok", bytes(token)]:
                return int(token)
            case [b"leased", bytes(owner), int(milliseconds)]:
                raise Leased(symbol, owner.decode(errors="replace"), milliseconds / 1000)
            case reply:
                raise unexpected(reply)

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        return await self._ask(series, partial(decode_snapshot, series), "candles")

    async def position(self, series: Series) -> Position | None:
        """See `Store.position`."""
        return await self._ask(series, decode_position, "position")

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        terms, announcement, values = await self._encode(series, commit)
        keys = self.keys
        call = Call(
            scripts.COMMIT,
            (keys.fence(series.symbol), keys.meta(series), keys.candles(series)),
            (token, self._history, terms, keys.channel(series.symbol), announcement, *values),
        )
        started = trio.current_time()
        match await self._call("write", call):
            case [b"ok", bytes(untold)]:
                # Counted and returned: no await from here on, for what the caller publishes is part of the commit.
                self._latencies.observe(trio.current_time() - started)
                self._commits += 1
                self._note_untold(str(series), untold)
            case [bytes(refusal), bytes(reason)]:
                self._refused += 1
                raise self._refusal(refusal, reason[:_EXCERPT].decode(errors="replace"), series, commit, token)
            case reply:
                raise unexpected(reply)

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`. The series is kept: other nodes may follow it, and whoever follows it again goes on."""
        reply = await self._call("write", Call(scripts.VERIFY, (self.keys.fence(series.symbol),), (token,)))
        if reply not in (0, 1):
            raise unexpected(reply)
        if reply == 0:
            raise _fenced(str(series), token)

    async def renew(self, symbol: str, report: Report, *, token: int) -> None:
        """See `SharedStore.renew`."""
        arguments = (token, self.node, self._milliseconds, self.keys.channel(symbol), encode_report(report))
        await self._keep(scripts.RENEW, symbol, arguments)

    async def release(self, symbol: str, release: Release, *, token: int) -> None:
        """See `SharedStore.release`."""
        await self._keep(scripts.RELEASE, symbol, (token, self.keys.channel(symbol), encode_release(release)))

    async def attend(self, member: Member) -> Mapping[str, Member]:
        """See `SharedStore.attend`."""
        members, untold = await self._membership.attend(member)
        self._note_untold("nodes", untold)
        return members

    async def members(self) -> Mapping[str, Member]:
        """Every node that is there, by its identity; for whoever is none of them."""
        return await self._membership.look()

    async def leave(self) -> None:
        """See `SharedStore.leave`."""
        self._note_untold("nodes", await self._membership.leave())

    async def keep_departures(self, present: Sequence[Stop], departed: Sequence[Stop], *, ends: bool = False) -> int:
        """See `SharedStore.keep_departures`."""
        return await self._departures.keep(present, departed, ends=ends)

    async def take_departures(self, keys: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        """See `SharedStore.take_departures`."""
        return await self._departures.take(keys, asked_at)

    async def listen(
        self, audience: Audience, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `SharedStore.listen`. Needs no `run`."""
        task_status.started()
        await self._listener.run(audience)

    def statistics(self) -> RedisStatistics:
        """A snapshot."""
        lanes = self._lanes.values()
        return RedisStatistics(
            commits=self._commits,
            refused=self._refused,
            unannounced=self._unannounced,
            unreadable=self._listener.unreadable,
            failures=sum(lane.failures for lane in lanes),
            pipelines=sum(lane.pipelines for lane in lanes),
            largest_group=max((lane.largest for lane in lanes), default=0),
            waiting=sum(lane.waiting for lane in lanes),
            latencies=self._latencies,
        )

    async def _encode(self, series: Series, commit: Commit) -> tuple[bytes, bytes, list[bytes]]:
        identity = f"{self.node}-{next(self._numbers)}"
        if len(commit.candles) <= _LARGE:
            return encode_commit(series, commit, identity)
        # A thousand candles take five milliseconds. Where hundreds of series begin at once (a wiped store), everything
        # else of this node has its turn between two of them: its leases above all.
        async with self._one_at_a_time:
            await trio.lowlevel.checkpoint()
            return encode_commit(series, commit, identity)

    async def _keep(self, script: Script, symbol: str, arguments: tuple[Argument, ...]) -> None:
        """Renew or release, by a script that takes the token first."""
        call = Call(script, (self.keys.fence(symbol), self.keys.lease(symbol)), arguments)
        match await self._call("lease", call):
            case [b"ok", bytes(untold)]:
                self._note_untold(symbol, untold)
            case [b"fenced", _]:
                raise _fenced(symbol, arguments[0])
            case reply:
                raise unexpected(reply)

    async def _ask(
        self, series: Series, decode: Callable[[object], Answer], what: Literal["candles", "position"]
    ) -> Answer:
        call = Call(scripts.READ, (self.keys.meta(series), self.keys.candles(series)), (what,))
        reply = await self._call("read", call)
        try:
            return decode(reply)
        except ValueError as error:
            raise StoreUnavailable(f"{series} in the store at {self._servers.name}: {error}") from error

    async def _call(self, kind: Literal["departure", "lease", "read", "write"], call: Call) -> object:
        if self._nursery is None:
            raise StoreUnavailable("the store is not open")
        # Reads go apart from writes, lest a commit wait for a hundred kilobytes; leases apart from both, lest a busy
        # node lose its own; the servers of a cluster apart from each other, lest one that is down hold up all.
        name = (kind, self._servers.place(call.keys[0]))
        lane = self._lanes.get(name)
        if lane is None:
            settings = self.settings
            limits = {
                "departure": settings.departures,
                "lease": settings.leases,
                "read": settings.reads,
                "write": settings.writes,
            }[kind]
            lane = self._lanes[name] = Lane(self._servers.execute, limits, self._limiter)
            self._nursery.start_soon(lane.run)
        return await lane.call(call)

    def _refusal(self, refusal: bytes, reason: str, series: Series, commit: Commit, token: int) -> Exception:
        match refusal:
            case b"fenced":
                return _fenced(str(series), token)
            case b"conflict":
                made = f"{commit.life}-{commit.revision}"
                return RevisionConflict(f"{series}: a commit that makes {made} cannot follow {reason}")
            case b"broken":
                return NotContinuous(f"{series}: {reason}")
            case b"format":
                return StoreUnavailable(f"{series} is kept in format {reason}, of another version of candlesync")
            case _:
                return unexpected(refusal)

    def _note_untold(self, what: str, untold: bytes) -> None:
        if not untold:
            return
        if self._unannounced == 0:
            _log.warning("what happens cannot be announced", what=what, reason=untold.decode(errors="replace"))
        self._unannounced += 1


def _fenced(what: str, token: object) -> Fenced:
    return Fenced(f"{what}: token {token} is not the current one")
