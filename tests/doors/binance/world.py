"""The whole service before the simulator, and a client of Binance's REST API that has changed its base URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx

from candlesync.config import Settings
from candlesync.simulator.settings import SimulatorSettings
from tests.whole.world import World, open_world

REAL_TIME = SimulatorSettings(minute_seconds=60.0)
ADDRESS = "192.0.2.1"


class Door:
    """What a client sees, and what Binance sees meanwhile."""

    def __init__(self, world: World, client: httpx.AsyncClient, upstream: list[httpx.Request]) -> None:
        self.world = world
        self.upstream = upstream
        """All that Binance was asked, exchangeInfo and backfills of the service's own included."""
        self._client = client

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """``GET /binance{path}``; headers as ``X_MBX_APIKEY=…``."""
        return await self.request("GET", path, **headers)

    async def request(self, method: str, path: str, **headers: str) -> httpx.Response:
        """A request, under ``/binance``."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.request(method, f"/binance{path}", headers=names)

    async def rows(self, query: str, path: str = "/api/v3/klines") -> list[list[Any]]:
        """The rows of klines."""
        response = await self.get(f"{path}?{query}")
        assert response.status_code == 200, response.text
        rows: list[list[Any]] = response.json()
        return rows

    @property
    def passed_on(self) -> list[str]:
        """What Binance was asked, path and query, but for backfills and lists of symbols."""
        asked = [request.url.raw_path.decode() for request in self.upstream]
        return [target for target in asked if not target.startswith(("/api/v3/klines?", "/api/v3/exchangeInfo"))]


@asynccontextmanager
async def open_door(settings: Settings | None = None, simulated: SimulatorSettings = REAL_TIME) -> AsyncIterator[Door]:
    """Run a world, and a client of it at an address that is not this machine's."""
    async with open_world(simulated, settings or Settings()) as world:
        asked: list[httpx.Request] = []

        async def note(request: httpx.Request) -> None:
            asked.append(request)

        world.service._client.event_hooks = {"request": [note]}
        transport = httpx.ASGITransport(app=cast("Any", world.service.app), client=(ADDRESS, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://candlesync.test") as client:
            yield Door(world, client, asked)
