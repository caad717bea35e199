"""The service: all parts of one candlesync process, put together under one nursery.

    frame ─▶ feed ─▶ symbol's task ─▶ core.sync decides ─▶ store.commit ─▶ hub ─▶ each client's socket

The parts are siblings in a nursery of ours, not tasks hung on the web framework: one that fails takes the service with
it, and the process ends, instead of answering on from a feed that is dead.
"""

from __future__ import annotations

import httpx
import trio
from quart_trio import QuartTrio

from candlesync.binance.pace import ConnectionPace
from candlesync.binance.pool import FeedPool
from candlesync.binance.rest import Rest, open_client
from candlesync.binance.stream import Connect, open_stream
from candlesync.binance.symbols import Symbols
from candlesync.binance.weight import WeightBudget
from candlesync.config import Settings
from candlesync.core.interval import Interval
from candlesync.hub import Hub
from candlesync.store.base import Store
from candlesync.store.memory import MemoryStore
from candlesync.supervisor import Supervisor
from candlesync.symbol import SymbolTask
from candlesync.web.app import create_app
from candlesync.web.live import Sockets
from candlesync.web.metrics import Metrics


class Service:
    """One candlesync process without its listening sockets.

    ``app`` is the ASGI application, and works while `run` does. The network can be replaced, so that the whole service
    runs in one process under a virtual clock: ``client`` for REST, ``connect`` for the streams.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: httpx.AsyncClient | None = None,
        connect: Connect = open_stream,
        store: Store | None = None,
    ) -> None:
        self.settings = settings
        self.stopping = trio.Event()
        """Set when the server goes down: clients are told, and nobody new is taken."""
        self.hub = Hub(settings.rules.history)
        self._client = client or open_client(settings.rest)
        self._rest = Rest(self._client, WeightBudget(settings.weight), settings.rest)
        self._feeds = FeedPool(settings.stream, ConnectionPace(settings.stream), connect=connect)
        self._store = store or MemoryStore(settings.rules.history)
        symbols = Symbols(self._rest, settings.listed)
        self.supervisor = Supervisor(
            settings.pinned, hub=self.hub, symbols=symbols, new_task=self._new_task, settings=settings.supervisor
        )
        sockets = Sockets(self.supervisor, self.stopping, settings.max_subscriptions)
        registry = Metrics(self.hub, self.supervisor, self._rest, self._feeds, sockets).registry()
        self.app: QuartTrio = create_app(self.supervisor, symbols, sockets, registry, self.stopping)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow Binance until cancelled. Raises, in a group, what no part could deal with."""
        async with self._client, trio.open_nursery() as nursery:
            await nursery.start(self._feeds.run)
            # Inside the feeds: the consumers are cancelled before what they consume from.
            async with trio.open_nursery() as consumers:
                await consumers.start(self.supervisor.run)
                task_status.started()

    def stop(self) -> None:
        """Say goodbye to the clients and take no new ones; the owner of `run` cancels it afterwards."""
        self.stopping.set()

    def _new_task(self, symbol: str, intervals: set[Interval]) -> SymbolTask:
        return SymbolTask(
            symbol,
            intervals,
            hub=self.hub,
            store=self._store,
            klines=self._rest,
            feeds=self._feeds,
            rules=self.settings.rules,
            inspection=self.settings.inspection,
        )
