"""The whole service in one process, without sockets: simulator, service and charts, driven by a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import httpx
import trio

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.service import Service
from candlesync.simulator.app import create_app
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.memory import connect_in_memory
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import SocketClosed, open_socket
from tests.chart import Chart


class World:
    """An exchange, the service that follows it, and the charts that look at the service."""

    def __init__(self, exchange: Exchange, service: Service, nursery: trio.Nursery) -> None:
        self.exchange = exchange
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


@asynccontextmanager
async def open_world(simulated: SimulatorSettings, settings: Settings) -> AsyncIterator[World]:
    """Run an exchange and a service that follows it."""
    exchange = Exchange(simulated)
    transport = httpx.ASGITransport(app=cast("Any", create_app(exchange)))
    client = httpx.AsyncClient(transport=transport, base_url="http://binance.test")
    service = Service(settings, client=client, connect=cast("Any", partial(connect_in_memory, exchange)))
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        async with trio.open_nursery() as service_nursery:
            await service_nursery.start(service.run)
            yield World(exchange, service, service_nursery)
            service_nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
