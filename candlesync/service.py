"""The service: all parts of one candlesync process, put together under one nursery.

    frame ─▶ feed ─▶ symbol's task ─▶ core.sync decides ─▶ store.commit ─▶ hub ─▶ each client's socket
                                                              └─ other nodes' announcements ─▶ followers ─▶ hub

The parts are siblings in a nursery of ours, not tasks hung on the web framework: one that fails takes the service with
it, and the process ends, instead of answering on from a feed that is dead.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import httpx
import trio
from quart_trio import QuartTrio

from candlesync.announcements import Announcements
from candlesync.archive import Archive
from candlesync.audit import Audit
from candlesync.binance.pace import ConnectionPace
from candlesync.binance.pool import FeedPool
from candlesync.binance.public_paths import public_api
from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import open_client
from candlesync.binance.symbols import Symbols
from candlesync.binance.weight import WeightBudget
from candlesync.config import Settings
from candlesync.core.interval import Interval
from candlesync.core.record import Record
from candlesync.doors.binance.departures import Departures
from candlesync.doors.binance.klines import Klines
from candlesync.doors.binance.metrics import passing_metrics, stream_metrics
from candlesync.doors.binance.passing import Passing
from candlesync.doors.binance.rest import BinanceRest
from candlesync.doors.binance.shared_departures import SharedDepartures
from candlesync.doors.binance.streams import stream_routes
from candlesync.doors.forms import FORMS
from candlesync.doors.udf.routes import udf_routes
from candlesync.hub import Hub
from candlesync.leases import SharedOwnership
from candlesync.ownership import Ownership, SoleOwnership
from candlesync.store.base import SharedStore, Store
from candlesync.store.memory import MemoryStore
from candlesync.store.redis import RedisStore
from candlesync.supervisor import Supervisor
from candlesync.symbol import Means, SymbolTask
from candlesync.web.access import Access
from candlesync.web.app import create_app
from candlesync.web.connections import Connections
from candlesync.web.live import Sockets
from candlesync.web.metrics import Metrics
from candlesync.web.metrics_clients import client_metrics, request_metrics
from candlesync.web.metrics_upstream import (
    archive_metrics,
    audit_metrics,
    lease_metrics,
    store_metrics,
    upstream_metrics,
)
from candlesync.web.requests import Requests
from candlesync.web.stopping import Stopping
from candlesync.websocket import Connect, open_websocket


class Service:
    """One candlesync process without its listening sockets.

    ``app`` is the ASGI application, and works while `run` does. What is outside of the process can be replaced, so that
    the whole service runs in one process under a virtual clock: ``client`` for REST, ``connect`` for the streams,
    ``store`` for a store of its own or ``shared`` for one that it shares with other services.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: httpx.AsyncClient | None = None,
        connect: Connect = open_websocket,
        store: Store | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        self.settings = settings
        self.stopping = Stopping()
        """Set when the server goes down: clients are told, and nobody new is taken."""
        self.hub = Hub(settings.rules.history)
        self._runs = False
        self._client = client or open_client(settings.rest)
        self._rest = Rest(self._client, WeightBudget(settings.weight), settings.rest)
        self._archive = Archive(self._rest)
        self._audit = Audit(settings.audit, self._rest.budget, weight_of=settings.rest.venue.klines_weight)
        self._feeds = FeedPool(settings.stream, ConnectionPace(settings.stream), connect=connect)
        self._redis = None if settings.store is None else RedisStore(settings.store, settings.rules.history)
        self._shared = shared or self._redis
        self._store: Store = store or self._shared or MemoryStore(settings.rules.history)
        symbols = Symbols(self._rest, settings.listed)
        self.supervisor = Supervisor(
            settings.pinned,
            hub=self.hub,
            symbols=symbols,
            new_task=self._new_task,
            settings=settings.supervisor,
            on_wants_changed=self._tell_wants,
        )
        self.nodes: SharedOwnership | None = None
        """With a shared store: which nodes there are, and who owns what."""
        announcements = Announcements()
        ownership: Ownership = SoleOwnership(self._store)
        if self._shared is not None:
            announcements = Announcements(self._shared.node, self._shared.lease)
            self.nodes = announcements.ownership = ownership = self._share(self._shared)
        record = Record(settings.pinned)
        self._means = Means(
            hub=self.hub,
            store=self._store,
            klines=self._rest,
            feeds=self._feeds,
            rules=settings.rules,
            inspection=settings.inspection,
            ownership=ownership,
            announcements=announcements,
            audit=self._audit,
            record=record,
        )
        self._sockets = sockets = Sockets(
            self.supervisor, self.stopping, settings.max_subscriptions, settings.message_rate
        )
        self._passing = Passing(self._rest)
        klines = Klines(public_api(settings.venue), self.supervisor, symbols, self._archive, self._passing)
        binance = BinanceRest(klines, self._passing)
        departures = Departures()
        self._departures = None if self._shared is None else SharedDepartures(self._shared)
        access = Access(settings.access, FORMS)
        requests = Requests(FORMS)
        self.connections = Connections(
            settings.max_connections, settings.access.connections or inf, settings.access.callers, settings.message_rate
        )
        """For who listens: what to let in."""
        sources = [
            partial(upstream_metrics, self._rest, self._feeds),
            partial(archive_metrics, self._archive),
            partial(audit_metrics, self._audit, self.supervisor.pinned),
            partial(client_metrics, self.hub, self.supervisor, sockets, access, self.connections),
            partial(request_metrics, requests),
            partial(passing_metrics, self._passing),
            partial(stream_metrics, sockets, departures),
        ]
        if self.nodes is not None:
            sources.append(partial(lease_metrics, self.nodes))
        if self._redis is not None:
            sources.append(partial(store_metrics, self._redis))
        metrics = Metrics(self.hub, self.supervisor, record, sources)
        self.app: QuartTrio = create_app(
            self.supervisor,
            symbols,
            sockets,
            metrics.registry(),
            self.stopping,
            archive=self._archive,
            access=access,
            requests=requests,
            nodes=self.nodes,
            is_alive=lambda: self._runs,
            doors=[
                stream_routes(settings.venue, self.supervisor, sockets, departures, self._departures),
                binance.routes(),
                udf_routes(self.supervisor, symbols, self._archive, self._rest),
            ],
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow Binance until cancelled. Raises, in a group, what no part could deal with."""
        async with self._client, self._among_nodes(), trio.open_nursery() as nursery:
            await nursery.start(self._feeds.run)
            # Inside the feeds: the consumers are cancelled before what they consume from.
            async with trio.open_nursery() as consumers:
                await consumers.start(self._archive.run)
                await consumers.start(self._passing.run)
                await consumers.start(self._sockets.turn.run)
                await consumers.start(self.supervisor.run)
                consumers.start_soon(self._audit.run)
                self._runs = True
                consumers.start_soon(self._note_end)
                task_status.started()

    async def _note_end(self) -> None:
        """When a part fails, all others are cancelled: from then on the service is dead, whoever still answers."""
        try:
            await trio.sleep_forever()
        finally:
            self._runs = False

    def stop(self) -> None:
        """Say goodbye to the clients, take no new ones, and give all symbols up to the other nodes.

        The owner of `run` cancels it afterwards.
        """
        self.stopping.set()
        if self.nodes is not None:
            self.nodes.resign()

    @asynccontextmanager
    async def _among_nodes(self) -> AsyncIterator[None]:
        """Be one of the nodes of a shared store for the block, and until it has ended.

        Each symbol's task then gives its lease up through the store, and this node leaves; also when it is cancelled.
        """
        shared, nodes = self._shared, self.nodes
        if shared is None or nodes is None:
            yield
            return
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._be_node, shared, nodes, done)
            try:
                yield
            finally:
                done.set()

    async def _be_node(
        self, shared: SharedStore, nodes: SharedOwnership, done: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        # Shielded until the block has ended, which takes a bounded time: each lease that is given up does.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as outer:
                if self._redis is not None:
                    await outer.start(self._redis.run)
                async with trio.open_nursery() as inner:
                    await inner.start(shared.listen, self._means.announcements)
                    await inner.start(nodes.run)
                    if self._departures is not None:
                        await inner.start(self._departures.run)
                    task_status.started()
                    await done.wait()
                    nodes.resign()
                    if self._departures is not None:
                        await self._departures.end()
                    inner.cancel_scope.cancel()
                outer.cancel_scope.cancel()

    def _share(self, store: SharedStore) -> SharedOwnership:
        return SharedOwnership(
            store,
            name=self.settings.node_name or f"{socket.gethostname()}/{os.getpid()}",
            wants=lambda: self.supervisor.wants,
            keep=self.supervisor.keep,
            settings=self.settings.leases,
        )

    def _tell_wants(self) -> None:
        if self.nodes is not None:
            self.nodes.wants_changed()

    def _new_task(self, symbol: str, intervals: set[Interval]) -> SymbolTask:
        return SymbolTask(symbol, intervals, self._means)
