"""The whole service in one process, without sockets: simulator, service and charts, driven by a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import trio
from trio_websocket import ConnectionRejected

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.service import Service
from candlesync.simulator.app import create_app
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.memory import connect_in_memory
from candlesync.simulator.settings import SimulatorSettings
from candlesync.websocket import Connection
from tests.asgi import SocketClosed, open_socket
from tests.chart import Chart


class World:
    """An exchange, the service that follows it, and the charts that look at the service."""

    def __init__(self, network: Network, service: Service, nursery: trio.Nursery) -> None:
        self.exchange = network.exchange
        self.network = network
        self.service = service
        self.nursery = nursery

    @property
    def minute(self) -> float:
        """Seconds that a minute of the market lasts."""
        return self.exchange.settings.minute_seconds

    async def get(self, path: str) -> Any:
        """A REST answer of the service."""
        return await self.service.app.test_client().get(path)

    async def until_live(self, symbol: str = "BTCUSDT", interval: str = "1m", seconds: float = 120.0) -> None:
        """Until the series is live; fails after ``seconds``."""
        series = Series(symbol, Interval(interval))
        with trio.fail_after(seconds):
            while (topic := self.service.hub.get(series)) is None or topic.state is not State.LIVE:  # noqa: ASYNC110 - as an outsider waits
                await trio.sleep(0.05)

    async def load(self, chart: Chart, symbol: str = "BTCUSDT", limit: int = 1000) -> None:
        """Load a chart over REST."""
        answer = await self.get(f"/candles/{symbol}/{chart.interval}?limit={limit}")
        body = await answer.get_data()
        assert answer.status_code == 200, body
        chart.load(body, answer.headers["Candlesync-Position"])

    async def follow(self, chart: Chart, symbol: str = "BTCUSDT", query: str = "") -> int:
        """Follow the WebSocket until cancelled, or until the server closes it: the close code."""
        path = f"/ws/candles/{symbol}?interval={chart.interval}{query}"
        async with open_socket(self.service.app, path) as socket:
            try:
                while True:
                    chart.take(await socket.receive())
            except SocketClosed as closed:
                return closed.code

    def truth(self, chart: Chart, symbol: str = "BTCUSDT") -> list[tuple[Any, ...]]:
        """The exchange's final rows from the chart's first candle on, as the kline rows of its REST API."""
        start = next(iter(chart.candles)) * 1000
        rows = self.exchange.truth(symbol, chart.interval, start, self.exchange.now())
        return [tuple(row) for row in rows]


class Network(httpx.AsyncBaseTransport):
    """The way to an exchange, which stands behind every host but those that do not serve this location (451)."""

    def __init__(self, exchange: Exchange, blocked: Collection[str] = ()) -> None:
        self.exchange = exchange
        self._app = httpx.ASGITransport(app=cast("Any", create_app(exchange)))
        self._blocked = blocked
        self.hosts: list[tuple[str, str]] = []
        """The scheme and host of all that was asked and connected to."""

    def client(self, settings: Settings) -> httpx.AsyncClient:
        """What a service asks REST with."""
        return httpx.AsyncClient(transport=self, base_url=settings.rest.urls[0])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append((request.url.scheme, request.url.host))
        if request.url.host in self._blocked:
            return httpx.Response(451)
        return await self._app.handle_async_request(request)

    @asynccontextmanager
    async def connect(self, url: str, **options: Any) -> AsyncIterator[Connection]:
        parts = urlsplit(url)
        self.hosts.append((parts.scheme, parts.hostname or ""))
        if parts.hostname in self._blocked:
            raise ConnectionRejected(451, (), b"")
        async with connect_in_memory(self.exchange, url, **options) as connection:
            yield connection


@asynccontextmanager
async def open_world(
    simulated: SimulatorSettings, settings: Settings, *, blocked: Collection[str] = ()
) -> AsyncIterator[World]:
    """Run an exchange and a service that follows it."""
    exchange = Exchange(simulated)
    network = Network(exchange, blocked)
    service = Service(settings, client=network.client(settings), connect=network.connect)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        async with trio.open_nursery() as service_nursery:
            await service_nursery.start(service.run)
            yield World(network, service, service_nursery)
            service_nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
