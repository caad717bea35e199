"""A server that lies: in front of an honest one, it changes what clients are shown."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import trio
import trio_websocket

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings
from candlesync.simulator.app import create_app
from candlesync.simulator.memory import connect_in_memory
from candlesync.verify.check import Binance
from candlesync.verify.server import Server
from candlesync.websocket import Connection
from tests.asgi import Socket, SocketClosed, SocketRefused, open_socket
from tests.whole.world import World

_CANDLE = re.compile(rb"\{[^}]*\}")

Candles = list[bytes]


class Liar:
    """An ASGI application. ``history`` changes the candles of a REST answer; ``message`` a WebSocket message, or keeps
    it back (`None`); ``without`` is a header that it leaves out. Each is a text, to keep every digit."""

    def __init__(
        self,
        app: Any,
        *,
        history: Callable[[Candles], Candles] = list,
        message: Callable[[str], str | None] = str,
        without: bytes = b"",
    ) -> None:
        self._app = app
        self._history = history
        self._message = message
        self._without = without

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_candles = scope["path"].startswith("/candles/")

        async def lie(event: Any) -> None:
            if event["type"] == "http.response.start":
                dropped = {self._without, b"content-length"}
                event["headers"] = [pair for pair in event["headers"] if pair[0].lower() not in dropped]
            elif event["type"] == "http.response.body" and is_candles:
                event["body"] = b"[" + b",".join(self._history(_CANDLE.findall(event["body"]))) + b"]"
            elif event["type"] == "websocket.send":
                text = self._message(event["text"])
                if text is None:
                    return
                event["text"] = text
            await send(event)

        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self._app({**scope, "headers": plain}, receive, lie)


class _Ours:
    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def get_message(self) -> str | bytes:
        try:
            return await self._socket.receive()
        except SocketClosed as closed:
            raise trio_websocket.ConnectionClosed(trio_websocket.CloseReason(closed.code, "")) from closed
        except SocketRefused as refused:
            raise trio_websocket.ConnectionRejected(refused.status, (), b"") from refused

    async def send_message(self, message: str) -> None:
        await self._socket.send(message)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()


def doors(world: World, app: Any) -> tuple[Server, Binance]:
    """How to ask an application in this process, and the exchange that it follows."""

    @asynccontextmanager
    async def connect(url: str, headers: Sequence[tuple[bytes, bytes]]) -> AsyncIterator[Connection]:
        parts = urlsplit(url)
        if parts.hostname == "binance.test":
            async with connect_in_memory(
                world.exchange, url, message_queue_size=100, max_message_size=2**20
            ) as connection:
                yield cast("Connection", connection)
        else:
            assert headers == []
            async with open_socket(app, f"{parts.path}?{parts.query}") as socket:
                yield _Ours(socket)

    ours = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://candlesync.test")
    exchange = cast("Any", create_app(world.exchange))
    theirs = httpx.AsyncClient(transport=httpx.ASGITransport(app=exchange), base_url="http://binance.test")
    rest = Rest(theirs, settings=RestSettings(attempts=1))
    return Server(ours, open_socket=connect), Binance(rest, connect, "ws://binance.test")
