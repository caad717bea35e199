"""The peer: candles over FastAPI the way they are served today, an asyncio task and a set of WebSockets.

It is given every advantage that a careful author would take: the JSON of a message is made once for all clients, and
REST is answered in three ways, of which the report shows all. It checks no continuity, keeps no positions, and bounds
no client; that is the difference to candlesync, not an oversight here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from websockets.asyncio.client import connect

from . import market
from .peer_candle import Candle, candle_in, candle_of, message_of, stream_url

candles: list[Candle] = []
"""Of the first symbol, which is the one that REST is asked for."""
clients: set[WebSocket] = set()
following = asyncio.Event()


async def follow() -> None:
    """Read Binance's stream and send each update to every client."""
    async with connect(stream_url(), compression=None) as stream:
        following.set()
        async for message in stream:
            candle = candle_in(message)
            if candle["symbol"] == market.SYMBOL:
                keep(candle)
            await send_to_all(message_of(candle))


def keep(candle: Candle) -> None:
    """Put it into the history."""
    if candles and candles[-1]["time"] == candle["time"]:
        candles[-1] = candle
    else:
        candles.append(candle)
        del candles[: -market.CANDLES]


async def send_to_all(text: str) -> None:
    """Send a message to every client."""
    for client in list(clients):
        try:
            await client.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            clients.discard(client)


async def history() -> list[Candle]:
    """The newest candles, from Binance's REST; the last is forming."""
    query: dict[str, str | int] = {"symbol": market.SYMBOL, "interval": "1m", "limit": market.CANDLES}
    async with httpx.AsyncClient() as client:
        rows = (await client.get(f"{os.environ['PEER_REST_URL']}/api/v3/klines", params=query)).json()
    loaded = [candle_of(row[0], row[1:6], closed=True) for row in rows]
    loaded[-1]["closed"] = False
    return loaded


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Load the history, then follow."""
    candles.extend(await history())
    task = asyncio.create_task(follow())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def ready() -> Response:
    """Whether it follows the stream."""
    return Response(status_code=200 if following.is_set() else 503)


@app.get("/candles/plain", response_model=None)
async def plain() -> list[Candle]:
    """REST as it is written first: the list as it is, through FastAPI's own encoder."""
    return candles


@app.get("/candles/typed")
async def typed() -> list[Candle]:
    """REST with a declared type, which FastAPI gives to pydantic's serializer."""
    return candles


@app.get("/candles/direct")
async def direct() -> JSONResponse:
    """REST past FastAPI's encoder: ``json.dumps`` alone."""
    return JSONResponse(candles)


@app.websocket("/ws/candles/{symbol}")
async def live(websocket: WebSocket, symbol: str) -> None:  # noqa: ARG001 - a part of the path
    """Every update from now on."""
    await websocket.accept()
    clients.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        clients.discard(websocket)
