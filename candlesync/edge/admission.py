"""Before a connection is served: whether there is a place for it, and a word to those for whom there is none."""

from __future__ import annotations

import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import trio

from candlesync.edge.frames import Frames

_PATIENCE = 1.0
"""Seconds that a client's request is waited for, and again that it may take to read the answer."""
_AT_ONCE = 100
"""Connections that are being told; beyond that they are cut off without a word, as each holds a file."""
_READ = 16
"""Pieces of what such a client sends that are read away."""


_PEEKED = 256
"""Bytes of a request that say what it asks for."""
_BEYOND = 10.0
"""Seconds for which a connection beyond the last place is served."""


class Places(Protocol):
    """Who knows how many connections there may be, and how much may come on each."""

    def enter(self, host: str | None) -> bytes:
        """Take a place for a connection of ``host``, which gives nothing; or the HTTP answer for who has none."""
        ...

    def leave(self, host: str | None) -> None:
        """Give back what `enter` took."""
        ...

    def new_frames(self) -> Frames:
        """What counts the frames of one client that are no message."""
        ...

    def enter_beyond(self, request: bytes) -> bool:
        """Take a place beyond the last for a connection whose first request begins so; whether it may have one."""
        ...

    def leave_beyond(self) -> None:
        """Give back what `enter_beyond` took."""
        ...


class Admission:
    """Serves each connection that gets a place, and turns the others away."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._turned_away = 0

    async def serve(self, stream: Any, serve: Callable[[], Awaitable[None]]) -> None:
        """Serve a connection, or tell its client in bounded time why not. The caller closes it."""
        host = _host(stream)
        answer = self._places.enter(host)
        if answer:
            await self._serve_beyond(stream, serve, answer)
            return
        try:
            await serve()
        finally:
            self._places.leave(host)

    async def _serve_beyond(self, stream: Any, serve: Callable[[], Awaitable[None]], answer: bytes) -> None:
        # Over TLS there is nobody to talk to before a handshake, which costs more than a refusal should.
        if self._turned_away >= _AT_ONCE or not isinstance(stream, trio.SocketStream):
            return
        self._turned_away += 1
        try:
            request = await _peek(stream)
        finally:
            self._turned_away -= 1
        if not self._places.enter_beyond(request):
            await self._turn_away(stream, answer)
            return
        try:
            # Bounded: it is no place to stay in.
            with trio.move_on_after(_BEYOND):
                await serve()
        finally:
            self._places.leave_beyond()

    async def _turn_away(self, stream: Any, answer: bytes) -> None:
        self._turned_away += 1
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                # A client that was not asked anything takes what comes before its request for noise.
                with trio.move_on_after(_PATIENCE):
                    await stream.receive_some()
                with trio.move_on_after(_PATIENCE):
                    await stream.send_all(answer)
                    await stream.send_eof()
                    # Closed with something unread, the connection would be reset, and the answer lost.
                    for _ in range(_READ):
                        if not await stream.receive_some():
                            break
        finally:
            self._turned_away -= 1


async def _peek(stream: trio.SocketStream) -> bytes:
    """How the first request begins, left to be read; nothing when none comes in time."""
    with trio.move_on_after(_PATIENCE), suppress(OSError, trio.ClosedResourceError):
        return await stream.socket.recv(_PEEKED, socket.MSG_PEEK)
    return b""


def raise_file_limit() -> int:
    """Let this process have as many files open as it may, and say how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems allow no more than their own bound, whatever the hard limit says.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def _host(stream: Any) -> str | None:
    """The address at the other end; `None` over a UNIX socket, or when it is gone already."""
    transport = getattr(stream, "transport_stream", stream)
    try:
        name = transport.socket.getpeername()
    except OSError:
        return None
    return str(name[0]) if isinstance(name, tuple) else None
