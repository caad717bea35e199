"""A client's connection to the service, over ASGI and without sockets, with or without a `Line`.

With a line the service writes WebSocket frames to the connection itself, as it does in our own server; without one it
sends through the framework, as under any other. Either way what a client does not read holds the service back, and a
client that takes nothing for `CUT_AFTER` seconds is cut off, as ``edge.line`` promises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from tests.scopes import http_scope, websocket_scope

LINE = "candlesync.line"
PEER = "simulation.peer"
"""In the scope of a WebSocket: the `Peer`, for who stands between it and the service."""
CUT_AFTER = 30.0
"""Seconds; the default of `Settings.send_timeout`."""


class Closed(Exception):
    """The connection has ended, with a close code (1006: without a close frame) or refused with an HTTP status."""

    def __init__(self, code: int, reason: str = "", *, is_refusal: bool = False) -> None:
        super().__init__(f"{'status' if is_refusal else 'closed with'} {code} {reason}")
        self.code = code
        self.reason = reason
        self.is_refusal = is_refusal


class Peer:
    """Both ends of one WebSocket. `receive` is the client's; what it has not received fills the window."""

    def __init__(self, *, window: int) -> None:
        """``window`` bytes may be on their way, more wait with the service."""
        self._window = window
        self._bytes = bytearray()
        """Frames that were written to the line and not received."""
        self._messages: deque[str] = deque()
        """The same, sent without a line."""
        self._rest = b""
        """Of frames that were taken in part: goes out before anything else."""
        self._pushing = 0
        self._end: Closed | None = None
        self._changed = trio.Event()
        """Something was sent or taken, or it has ended."""
        self._said: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._heard = trio.Event()
        """Something was said."""
        self._life = trio.CancelScope()
        self.left_at: float | None = None
        """Since when nobody has anything to do with it any more."""

    # --- the client's side

    async def receive(self) -> str:
        """The next message; raises `Closed` when there is none left and the connection has ended."""
        while True:
            message = self._next()
            if message is not None:
                self._wake()
                return message
            if self._end is not None:
                raise self._end
            await self._changed.wait()

    def say(self, text: str) -> None:
        """Send a text message."""
        self._said.append({"type": "websocket.receive", "text": text, "bytes": None})
        self._heard.set()

    def leave(self) -> None:
        """Be gone, and let the service be told."""
        self._said.append({"type": "websocket.disconnect", "code": 1001})
        self._heard.set()

    # --- the service's side: a ``hub.Line``

    def offer(self, frames: bytes) -> int:
        """See ``hub.Line``."""
        if self._rest or self._pushing or self._end is not None:
            return 0
        taken = min(len(frames), self._window - len(self._bytes))
        if taken <= 0:
            return 0
        self._bytes += frames[:taken]
        self._rest = frames[taken:]
        self._wake()
        return taken

    async def push(self, frames: bytes) -> bool:
        """See ``hub.Line``."""
        if not self._rest and not self._pushing:
            frames = frames[self.offer(frames) :]
            if not frames:
                return True
            waiting = frames  # what was not taken: the rest of a part, or all of it
        else:
            waiting = self._rest + frames
        self._rest = b""
        with trio.CancelScope(shield=True):
            self._pushing += 1
            try:
                await self._drain(waiting)
            finally:
                self._pushing -= 1
        return False

    async def _drain(self, frames: bytes) -> None:
        while frames and self._end is None:
            taken = min(len(frames), self._window - len(self._bytes))
            if taken > 0:
                self._bytes += frames[:taken]
                frames = frames[taken:]
                self._wake()
            elif not await self._taken():
                self.cut()

    async def _taken(self) -> bool:
        """Wait until the client has taken something, but not for ever."""
        with trio.move_on_after(CUT_AFTER):
            await self._changed.wait()
            return True
        return False

    def cut(self) -> None:
        """End it without a close frame."""
        self._end = self._end or Closed(1006)
        self._life.cancel()
        self._wake()

    # --- the service's side: ASGI

    async def run(self, app: Any, path: str, *, with_line: bool) -> None:
        """Be served by the application, until it is done with the connection."""
        scope = websocket_scope(path)
        scope[PEER] = self
        if with_line:
            scope["extensions"][LINE] = self
        try:
            with self._life:
                await app(scope, self._hear, self._send)
        finally:
            self._end = self._end or Closed(1006)
            self._wake()

    async def _hear(self) -> dict[str, Any]:
        while not self._said:
            self._heard = trio.Event()
            await self._heard.wait()
        return self._said.popleft()

    async def _send(self, event: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        match event["type"]:
            case "websocket.send":
                while len(self._messages) >= 4 and self._end is None:
                    if not await self._taken():
                        self.cut()
                self._messages.append(str(event["text"]))
            case "websocket.close":
                self._end = self._end or Closed(event["code"], event.get("reason") or "")
            case "websocket.http.response.start":
                self._end = self._end or Closed(event["status"], is_refusal=True)
        self._wake()

    # --- the parts

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _next(self) -> str | None:
        if self._messages:
            return self._messages.popleft()
        kept = self._bytes
        if len(kept) < 2:
            return None
        size, start = kept[1], 2
        if size == 126:
            size, start = int.from_bytes(kept[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(kept[2:10], "big"), 10
        if len(kept) < start + size:
            return None
        text = kept[start : start + size].decode()
        del kept[: start + size]
        return text


@asynccontextmanager
async def open_peer(app: Any, path: str, *, with_line: bool, window: int = 65_536) -> AsyncIterator[Peer]:
    """A WebSocket to ``path``; leaving the block is the client's vanishing."""
    peer = Peer(window=window)
    closed: Closed | None = None
    try:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await peer.run(app, path, with_line=with_line)

            nursery.start_soon(serve)
            try:
                yield peer
            except Closed as error:
                closed = error  # raised below, alone: not in the nursery's group
            finally:
                peer.cut()
                nursery.cancel_scope.cancel()
    finally:
        peer.left_at = trio.current_time()
    if closed is not None:
        raise closed


class Request:
    """Both ends of one request without a body."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        """What the service has answered."""
        self.left_at: float | None = None
        """Since when nobody has anything to do with it any more."""
        self._to_hear: deque[dict[str, Any]] = deque([{"type": "http.request", "body": b"", "more_body": False}])
        self._is_complete = trio.Event()

    async def hear(self) -> dict[str, Any]:
        """What the service receives."""
        if self._to_hear:
            await trio.lowlevel.checkpoint()
            return self._to_hear.popleft()
        await self._is_complete.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        """Take what the service sends."""
        await trio.lowlevel.checkpoint()
        self.sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            self._is_complete.set()


class Reply(msgspec.Struct, frozen=True):
    """The service's answer to a request."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


async def ask(app: Any, path: str) -> Reply:
    """The answer to ``GET path``, over ASGI."""
    request = Request()
    try:
        await app(http_scope(path), request.hear, request.send)
    finally:
        request.left_at = trio.current_time()
    start, *bodies = request.sent
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], headers, b"".join(event.get("body", b"") for event in bodies))
