"""Quart on Hypercorn without us: a WebSocket that sends back what its client says, and is otherwise idle."""

from __future__ import annotations

from quart import Response, websocket
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.get("/ready")
async def ready() -> Response:
    """It has nothing to wait for."""
    return Response(b"")


@app.websocket("/ws/echo")
async def echo() -> None:
    """Say the same."""
    while True:
        await websocket.send(await websocket.receive())
