"""What the tests of the simulator share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from trio_websocket import WebSocketConnection

from candlesync.core.interval import Interval
from candlesync.simulator.app import create_app
from candlesync.simulator.bars import Row
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.settings import DEFAULT_START, KlineFile, SimulatorSettings

START = DEFAULT_START
MINUTE = 60_000
OUTAGE_BEGINS = 1_679_661_581_646
"""The close time of BTCUSDT's last candle before the outage of 2023-03-24 (12:39:41.646)."""
OUTAGE_ENDS = 1_679_666_400_000
"""14:00 of that day."""


def shared(name: str) -> Path:
    """A file of recorded data; the test is skipped where there is none, but not in CI."""
    folder = Path(os.environ.get("CANDLESYNC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = folder / name
    if not path.exists():
        reason = f"no recorded data at {path}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def archive(symbol: str, interval: str, *days: str) -> tuple[KlineFile, ...]:
    """Days of Binance's public archive."""
    return tuple(
        KlineFile(symbol, Interval(interval), shared(f"archive/{symbol}-{interval}-{day}.zip")) for day in days
    )


def simulated(**settings: Any) -> Exchange:
    """An exchange whose minute lasts a minute, for tests under a virtual clock."""
    return Exchange(SimulatorSettings(**{"minute_seconds": 60.0, **settings}))


@asynccontextmanager
async def running(exchange: Exchange) -> AsyncIterator[Exchange]:
    """Run an exchange for as long as the block lasts."""
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        yield exchange
        nursery.cancel_scope.cancel()


def rest_of(exchange: Exchange) -> httpx.AsyncClient:
    """A client of the exchange's REST API, without sockets."""
    app: Any = create_app(exchange)  # httpx describes ASGI in other words than Quart
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://binance")


async def klines(
    client: httpx.AsyncClient, symbol: str = "BTCUSDT", interval: str = "1m", **more: int | str
) -> list[Row]:
    """Rows of ``/api/v3/klines``."""
    response = await client.get("/api/v3/klines", params={"symbol": symbol, "interval": interval, **more})
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=list[Row])


async def events(connection: WebSocketConnection, count: int) -> list[dict[str, Any]]:
    """The next messages of a connection."""
    return [msgspec.json.decode(await connection.get_message()) for _ in range(count)]


async def events_for(connection: WebSocketConnection, seconds: float) -> list[dict[str, Any]]:
    """All messages of the next seconds."""
    found: list[dict[str, Any]] = []
    with trio.move_on_after(seconds):
        while True:
            found += await events(connection, 1)
    return found


def row_of_event(event: dict[str, Any]) -> Row:
    """The row that a kline event tells."""
    k = event["k"]
    return Row(k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"], k["V"], k["Q"], k["B"])
