"""A smaller run over a real Valkey: real time, minutes of half a second, a server that is stopped, killed and wiped.

Nothing here can be repeated exactly: the server and its threads keep their own time. What is checked is the same.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import trio

from candlesync.core.candle import Series
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.sync import State
from candlesync.simulator import faults
from candlesync.store.address import Address
from candlesync.store.base import Store
from candlesync.store.redis import RedisSettings, RedisStore
from tests.store.redis_server import RedisServer, run_server

from .clients import Chart, Client, Many, Poller, Slow
from .ledger import Ledger
from .schedule import Schedule
from .verdict import Verdict
from .world import Outcome, World

SETTLE = 30.0
"""Seconds at the end without trouble."""


class WatchedRedis(RedisStore):
    """The Redis store, whose commits are entered in the books; also those whose answer was lost, when they are read."""

    ledger: Ledger

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        await super().commit(series, commit, token=token)
        self.ledger.committed(series, commit)
        self.ledger.answered(series, commit)

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        snapshot = await super().read(series)
        if snapshot is not None:
            self.ledger.found(series, snapshot)
        return snapshot


class RedisWorld(World):
    """A world over a real server."""

    minute_seconds = 0.5
    behind = 20 * 60_000
    kinds: tuple[type[Client], ...] = (Chart, Slow, Many, Poller)
    server: RedisServer

    async def _begin(self, nursery: trio.Nursery) -> None:
        store = self.store
        assert isinstance(store, WatchedRedis), "it was opened here"  # noqa: S101 - for mypy; it cannot happen
        await nursery.start(store.run)

    async def _live(self, clients: trio.Nursery) -> None:  # noqa: ARG002 - nobody comes or goes here
        await self._trouble()
        for client in self.clients:
            client.calm()
        await trio.sleep(SETTLE)
        with trio.move_on_after(SETTLE):
            while any(topic.state is not State.LIVE for topic in self.service.hub):  # noqa: ASYNC110 - as an outsider waits
                await trio.sleep(0.1)
        await self.check_end()

    async def _trouble(self) -> None:
        server, add = self.server, self.exchange.add_fault
        troubles: tuple[tuple[str, Callable[[], object]], ...] = (
            ("drop", lambda: add(faults.Drop())),
            ("server stopped", lambda: server.signal(signal.SIGSTOP)),
            ("server goes on", lambda: server.signal(signal.SIGCONT)),
            ("connections killed", lambda: server.client().client_kill_filter(skipme=True)),
            ("rest_down", lambda: add(faults.RestDown(seconds=4.0))),
            ("drop", lambda: add(faults.Drop(close_frame=False))),
            ("server wiped", lambda: server.client().flushall()),
            ("server killed", server.kill),
            ("server started, empty", server.start),
            ("hide_close", lambda: add(faults.HideClose())),
            ("server wiped", lambda: server.client().flushall()),
        )
        for name, act in troubles * max(1, round(self.schedule.seconds / (6.0 * len(troubles)))):
            await trio.sleep(6.0)
            self.faults[name] += 1
            self.watch.record("event", name)
            act()  # in this thread: a server dies with the thread that has started it

    def _open_store(self, history: int) -> Store:
        store = WatchedRedis(RedisSettings(Address(self.server.url)), history)
        store.ledger = self.watch.ledger
        return store

    def _stores(self) -> dict[str, Any]:
        return {"shared": self.store}


def simulate_redis(seed: int, seconds: float) -> Outcome:
    """Run it for about so many seconds."""

    async def run(server: RedisServer) -> Outcome:
        with trio.CancelScope() as scope:
            kind = type("", (RedisWorld,), {"server": server})
            world: RedisWorld = kind(Schedule(seed=seed, days=seconds / 86_400.0), Verdict(scope.cancel))
            with world.watch.watching():
                await world.run()
            ended = world.exchange.now()
        return world.outcome((ended - world.exchange.clock.start) / 1000)

    with run_server() as server:
        return trio.run(run, server)
