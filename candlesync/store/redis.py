"""The store of several nodes: series in Redis or Valkey, alone or as a cluster.

    commit ─▶ lane (gathers what is ready together) ─▶ one pipeline in a worker thread ─▶ one script a commit

A series is one list of candles and one hash of the rest (``store.codec``). The server runs one thing at a time, and
each of our calls is one script on it: so a commit is checked, made and announced with nothing in between, and a read
is of one revision. What breaks the contract the script itself refuses (``commit.lua``), whoever asks.

Candles must not vanish on their own: give the server ``maxmemory-policy noeviction``. Where a part of a series has
vanished all the same, the series counts as one that was never there.
"""

from __future__ import annotations

import secrets
from itertools import count
from typing import Literal

import msgspec
import structlog
import trio

from candlesync.core.candle import Series
from candlesync.core.replica import Commit, Snapshot
from candlesync.errors import Fenced, NotContinuous, RevisionConflict, StoreUnavailable
from candlesync.store import scripts
from candlesync.store.address import Address
from candlesync.store.cluster import Cluster
from candlesync.store.codec import Keys, decode_snapshot, encode_commit
from candlesync.store.pipeline import Lane, Limits
from candlesync.store.scripts import Call
from candlesync.store.server import OneServer, Servers

_log = structlog.get_logger(__name__)


class RedisSettings(msgspec.Struct, frozen=True):
    """Where the store is, and how to deal with it."""

    address: Address
    prefix: str = "candlesync"
    """Of all keys and channels: deployments that share a server have different ones."""
    writes: Limits = Limits()
    reads: Limits = Limits(calls=16)
    """Few, since the answer to each is a whole series."""
    threads: int = 16
    """At most: two for each server, and those that were given up but have not ended."""


class RedisStatistics(msgspec.Struct, frozen=True):
    """What the store has done since it was made."""

    commits: int
    refused: int
    """Commits that the script refused."""
    unannounced: int
    """Commits that nobody could be told of."""
    failures: int
    """Calls that got no answer of use: their outcome is unknown to the store."""
    pipelines: int
    largest_group: int
    """Calls in the largest pipeline."""
    waiting: int
    """Calls not answered yet."""
    last_latency: float
    """Seconds that the last successful commit took, waiting included."""


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
        self._name = secrets.token_hex(4)
        self._numbers = count(1)
        self._commits = self._refused = self._unannounced = 0
        self._last_latency = 0.0

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
        call = Call(scripts.CLAIM, (self.keys.fence(symbol),), (f"{secrets.randbelow(10**10):010}",))
        reply = await self._call("write", call)
        if not isinstance(reply, bytes):
            raise _unexpected(reply)
        return int(reply)

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        call = Call(scripts.READ, (self.keys.meta(series), self.keys.candles(series)))
        reply = await self._call("read", call)
        try:
            return decode_snapshot(reply)
        except ValueError as error:
            raise StoreUnavailable(f"{series} in the store at {self._servers.name}: {error}") from error

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        terms, announcement, values = encode_commit(series, commit, f"{self._name}-{next(self._numbers)}")
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
                self._last_latency = trio.current_time() - started
                self._commits += 1
                self._note_untold(series, untold)
            case [bytes(refusal), bytes(reason)]:
                self._refused += 1
                raise self._refusal(refusal, reason.decode(errors="replace"), series, commit, token)
            case reply:
                raise _unexpected(reply)

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`. The series is kept: other nodes may follow it, and whoever follows it again goes on."""
        reply = await self._call("write", Call(scripts.VERIFY, (self.keys.fence(series.symbol),), (token,)))
        if reply not in (0, 1):
            raise _unexpected(reply)
        if reply == 0:
            raise _fenced(series, token)

    def statistics(self) -> RedisStatistics:
        """A snapshot."""
        lanes = self._lanes.values()
        return RedisStatistics(
            commits=self._commits,
            refused=self._refused,
            unannounced=self._unannounced,
            failures=sum(lane.failures for lane in lanes),
            pipelines=sum(lane.pipelines for lane in lanes),
            largest_group=max((lane.largest for lane in lanes), default=0),
            waiting=sum(lane.waiting for lane in lanes),
            last_latency=self._last_latency,
        )

    async def _call(self, kind: Literal["read", "write"], call: Call) -> object:
        if self._nursery is None:
            raise StoreUnavailable("the store is not open")
        # Reads go apart from writes, lest a commit wait for a hundred kilobytes; the servers of a cluster apart from
        # each other, lest one that is down make the others' commits wait.
        name = (kind, self._servers.place(call.keys[0]))
        lane = self._lanes.get(name)
        if lane is None:
            limits = self.settings.reads if kind == "read" else self.settings.writes
            lane = self._lanes[name] = Lane(self._servers.execute, limits, self._limiter)
            self._nursery.start_soon(lane.run)
        return await lane.call(call)

    def _refusal(self, refusal: bytes, reason: str, series: Series, commit: Commit, token: int) -> Exception:
        match refusal:
            case b"fenced":
                return _fenced(series, token)
            case b"conflict":
                made = f"{commit.life}-{commit.revision}"
                return RevisionConflict(f"{series}: a commit that makes {made} cannot follow {reason}")
            case b"broken":
                return NotContinuous(f"{series}: {reason}")
            case b"format":
                return StoreUnavailable(f"{series} is kept in format {reason}, of another version of candlesync")
            case _:
                return _unexpected(refusal)

    def _note_untold(self, series: Series, untold: bytes) -> None:
        if not untold:
            return
        if self._unannounced == 0:
            _log.warning("commits cannot be announced", series=str(series), reason=untold.decode(errors="replace"))
        self._unannounced += 1


def _fenced(series: Series, token: int) -> Fenced:
    return Fenced(f"{series}: token {token} is not the current one")


def _unexpected(reply: object) -> StoreUnavailable:
    return StoreUnavailable(f"the store gave what no script of ours gives: {reply!r:.100}")
