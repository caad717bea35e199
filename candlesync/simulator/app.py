"""The exchange as a Quart-Trio application: REST, streams, and the control calls of tests."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

import quart.wrappers
from quart import Response, request, websocket
from quart_trio import QuartTrio

from candlesync.simulator.control import create_control
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.session import ClientGone

_Disconnected: type[Exception] = getattr(quart.wrappers, "ClientDisconnectedError", ClientGone)
"""What Quart 0.23 raises when the client has left. Quart 0.22 has no such error: it cancels the task."""

ABORT = "candlesync.abort"
"""The ASGI extension by which a server lends us a function, ``now``, that breaks the connection."""


def create_app(exchange: Exchange) -> QuartTrio:
    """The application that serves ``exchange``; whoever owns the exchange runs it."""
    app = QuartTrio("candlesync.simulator")

    async def rest() -> Response:
        answer = await exchange.answer(request.path, _query(request.query_string))
        return Response(
            answer.body, answer.status, {**answer.headers, "Content-Type": "application/json;charset=UTF-8"}
        )

    for path in exchange.rest_paths:
        app.add_url_rule(path, path, rest, methods=["GET"])

    async def stream(**_: str) -> tuple[str, int] | None:
        target = f"{websocket.path}?{websocket.query_string.decode('latin-1')}"
        status = await exchange.refusal(target)
        if status is not None:
            return "", status
        await websocket.accept()
        await exchange.serve(_HypercornTransport(), target)
        return None

    for prefix in dict.fromkeys(("", exchange.settings.of_venue.streams)):
        for path in ("/ws", "/ws/<path:streams>", "/stream"):
            app.add_websocket(prefix + path, prefix + path, stream)

    app.register_blueprint(create_control(exchange))
    return app


class _HypercornTransport:
    """A WebSocket of the Quart context that it is made in.

    Hypercorn sends the pings and does not tell of pongs, so here a client is not cut for want of them.
    """

    def __init__(self) -> None:
        extensions = websocket.scope.get("extensions") or {}
        self._abort: Callable[[], None] | None = extensions.get(ABORT, {}).get("now")

    async def send(self, text: str) -> None:
        try:
            await websocket.send(text)
        except _Disconnected:
            raise ClientGone from None

    async def receive(self) -> str | bytes:
        try:
            return await websocket.receive()
        except _Disconnected:
            raise ClientGone from None

    async def ping(self) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        await websocket.close(code, reason)

    def abort(self) -> None:
        # Without a server that lends us the means, the end of the task closes it with 1000 or 1011.
        if self._abort is not None:
            self._abort()


def _query(raw: bytes) -> list[tuple[str, str]]:
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
