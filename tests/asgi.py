"""A WebSocket client that talks to an ASGI application in this process, and may be cancelled anywhere.

(Quart's own test client leaves its nursery open when it is cancelled.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.scopes import websocket_scope


class SocketClosed(Exception):
    """The server has closed the WebSocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class SocketRefused(Exception):
    """The server has answered the upgrade with an HTTP status."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


class Socket:
    """The client's end. `receive` takes one message at a time; what is not taken holds the server back."""

    def __init__(self) -> None:
        self._to_server, self._from_client = trio.open_memory_channel[dict[str, Any]](100)
        self._to_client, self._from_server = trio.open_memory_channel[dict[str, Any]](0)

    async def receive(self) -> str:
        """The next message; raises `SocketClosed` or `SocketRefused`."""
        while True:
            event = await self._from_server.receive()
            match event["type"]:
                case "websocket.send":
                    return str(event["text"])
                case "websocket.close":
                    raise SocketClosed(event["code"], event.get("reason") or "")
                case "websocket.http.response.start":
                    headers = {name.decode(): value.decode() for name, value in event["headers"]}
                    raise SocketRefused(event["status"], headers)

    async def send(self, text: str) -> None:
        """Send a text message."""
        await self._to_server.send({"type": "websocket.receive", "text": text, "bytes": None})

    async def run(self, app: Any, path: str) -> None:
        """Be served by the application, until it is done with the socket."""
        await self._to_server.send({"type": "websocket.connect"})
        await app(websocket_scope(path), self._from_client.receive, self._to_client.send)


@asynccontextmanager
async def open_socket(app: Any, path: str) -> AsyncIterator[Socket]:
    """A WebSocket to ``path``; leaving the block is the client's vanishing."""
    socket = Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.run, app, path)
        yield socket
        nursery.cancel_scope.cancel()
