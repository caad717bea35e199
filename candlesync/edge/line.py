"""A client's connection as a line of bytes: what is put on it goes out in order, whole, and in bounded time.

Everything that a connection sends goes through its `Line`: Hypercorn's answers, pings and closes, the messages of a
WebSocket's own task, and the frames that the hub writes to many lines in one pass (`Line.offer`). What the socket does
not take at once is the line's rest, and goes out before anything else, so that no frame lands inside another.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import ClassVar

import trio

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_NOTHING = memoryview(b"")
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: what was not taken is dropped when the socket is closed, and the client is told so."""

SEND_BUFFER = 256 * 1024
"""Bytes that the kernel is told to hold of what a client has not acknowledged; by itself it would go up to MiB for
each. Linux allows twice as many, for what it needs itself (socket(7), SO_SNDBUF). Of what it has not yet sent it takes
16 KiB at most: Trio asks that of it (TCP_NOTSENT_LOWAT)."""


class Line:
    """The way out to one client.

    Invariants: bytes leave in the order in which they were taken; a frame that was begun is ended before the next; what
    waits here for a client is at most what one `send` was given, and what one `offer` was given. Whoever closes the
    stream has shut the line before.
    """

    __slots__ = (
        *("_answer", "_descriptor", "_is_free", "_is_gone", "_is_shut", "_lock", "_on_doubt", "_on_gone", "_rest"),
        *("_senders", "_stream", "__weakref__", "heard_at", "is_direct", "pinged_at"),
    )

    timeout: ClassVar[float] = 30.0
    """Seconds for which a client may take nothing."""
    slowest: ClassVar[float] = 1024.0
    """Bytes a second that a client must take of a long answer, from the `timeout` on: one that takes a byte now and
    then takes something all the time, and would never be done."""
    send_buffer: ClassVar[int] = SEND_BUFFER
    """Bytes that the kernel is told to hold of what a client has not taken."""
    answers_within: ClassVar[float] = 3.0
    """Seconds in which a client that is there answers a ping, over any network and however busy."""
    cut_off: ClassVar[int] = 0
    """Clients that took too long, of this process."""
    _end: ClassVar[float] = inf
    _waiting: ClassVar[set[trio.CancelScope]] = set()

    def __init__(
        self, stream: trio.abc.SendStream, on_gone: Callable[[], None], on_doubt: Callable[[], None] = lambda: None
    ) -> None:
        """
        ``on_gone`` is called, once or again, when the client is gone or takes too long, and ``on_doubt`` to have it
        pinged. Neither may wait.
        """
        self._stream = stream
        self._on_gone = on_gone
        self._on_doubt = on_doubt
        self._answer: trio.Event | None = None
        """Set when the client is heard of, if somebody waits for that."""
        self.heard_at = trio.current_time()
        """When the client was last heard of (trio time), whatever it sent."""
        self.pinged_at = -inf
        """When the first ping was sent that it has not answered; if it has answered all, one of the earlier ones."""
        self._lock = trio.Lock()
        self._senders = 0
        """Tasks that hold the lock or wait for it."""
        self._rest = _NOTHING
        self._is_gone = False
        self._is_shut = False
        self._is_free = True
        """Whether an offer can be taken: kept up to date, so that an offer costs little more than its write."""
        self.is_direct = isinstance(stream, trio.SocketStream)
        """Whether the socket takes the bytes as they are; under TLS it does not, and nothing can be offered."""
        self._descriptor = self._fileno()
        """The socket's, for offers: once it is closed the number may be another's, but then the line is shut."""
        self._set_option(socket.SO_SNDBUF, self.send_buffer)

    @property
    def is_gone(self) -> bool:
        """Whether the client is gone, or took too long; what was taken last may not have gone out."""
        return self._is_gone

    @property
    def is_silent(self) -> bool:
        """Whether the client has not answered a ping for so long that it will hardly do so: what it was sent since it
        was heard of may have reached nobody."""
        return self.heard_at < self.pinged_at <= trio.current_time() - self.answers_within

    def ping(self) -> None:
        """A ping is being sent."""
        if self.heard_at >= self.pinged_at:
            self.pinged_at = trio.current_time()

    def hear(self) -> None:
        """The client has sent something."""
        self.heard_at = trio.current_time()
        if self._answer is not None:
            self._answer.set()
            self._answer = None

    async def is_there(self) -> bool:
        """Whether the client, pinged now, is heard of in time."""
        if self._is_gone or self._is_shut or self.is_silent:
            return False
        if self._answer is None:
            self._answer = trio.Event()
            self._on_doubt()
        answer = self._answer
        # The ping may have to wait for its turn. Where none is sent, nothing is known against the client.
        with trio.move_on_after(self.answers_within + 0.5):
            await answer.wait()
        return not self.is_silent

    def shut(self) -> None:
        """Take no more offers: a WebSocket close frame goes out, and nothing may follow it."""
        self._is_shut = True
        self._settle()

    def offer(self, frames: bytes) -> int:
        """Write whole frames at once, if nothing else is on its way; how many of the bytes were taken. Never waits.

        If any were, all will go out in time; somebody who can wait calls `push`, with nothing or more, to see to it.
        """
        # Hundreds of lines are offered the same in a row, and none of them is in the processor's cache: what is touched
        # here counts more than what is done.
        if not self._is_free:
            return 0
        taken = self._write(self._descriptor, frames)
        if 0 < taken < len(frames):
            self._keep(memoryview(frames)[taken:])
        return taken

    async def push(self, frames: bytes) -> bool:
        """Send whole frames as `send` does; nothing once the line is shut."""
        if self._is_shut or not (frames or self._rest):
            return True
        return await self.send(frames)

    async def send(self, data: bytes) -> bool:
        """Send all of it, after whatever is on its way; whether that was done at once.

        Not cancelled half-way: what was begun is sent. But bounded: when the client takes too long, it is gone. To one
        that is gone, nothing is sent, and nothing is raised.
        """
        if self._is_gone:
            return True
        if self.is_direct and not self._rest and not self._senders:
            taken = self._write(self._fileno(), data)
            if taken == len(data):
                return True
            # Nobody else writes from here on: there is a rest.
            self._keep(memoryview(data)[taken:])
            data = b""
        # Shielded, as in Hypercorn: wsproto has made the frame, and for it every frame made is a frame sent. So a
        # cancellation neither cuts a frame in two nor leaves one out.
        with trio.CancelScope(shield=True):
            self._senders += 1
            self._is_free = False
            try:
                async with self._lock:
                    if not self._is_gone:
                        await self._drain(data)
            finally:
                self._senders -= 1
                self._settle()
        return False

    async def expect(self, size: int, wait: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Await what ends when the client has taken so many bytes; it has as long as for a `send` of them."""
        if not await self._within(self._end_of(size), wait, *arguments):
            self._lose()

    def _end_of(self, size: int) -> float:
        """When so many bytes must have been taken (trio time)."""
        return trio.current_time() + self.timeout + size / self.slowest

    async def _drain(self, data: bytes) -> None:
        """Send the rest and then the data; the caller holds the lock."""
        if not self.is_direct:
            await self.expect(len(data), self._stream.send_all, data)
            return
        end = self._end_of(len(self._rest) + len(data))
        if data:
            self._keep(memoryview(b"".join((self._rest, data))))
        while self._rest:
            until = min(end, trio.current_time() + self.timeout)
            if not await self._within(until, trio.lowlevel.wait_writable, self._fileno()):
                self._lose()
            else:
                taken = self._write(self._fileno(), self._rest)
                self._keep(self._rest[taken:])

    async def _within(self, deadline: float, wait: Callable[..., Awaitable[object]], *arguments: object) -> bool:
        """Await something; whether it came in time, and the client was still there."""
        with trio.CancelScope(deadline=min(deadline, Line._end)) as scope:
            self._waiting.add(scope)
            try:
                await wait(*arguments)
            except (*_GONE, OSError, ValueError):
                return False
            finally:
                self._waiting.discard(scope)
        Line.cut_off += scope.cancelled_caught
        return not scope.cancelled_caught

    def _fileno(self) -> int:
        """The socket's descriptor; once it is closed, and where there is none, -1, which is nobody's."""
        return self._stream.socket.fileno() if isinstance(self._stream, trio.SocketStream) else -1

    def _write(self, descriptor: int, data: bytes | memoryview) -> int:
        """How many bytes the socket takes now."""
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            return 0
        except OSError:
            self._lose()
            return 0

    def _keep(self, rest: memoryview) -> None:
        # An empty view would hold all that it was cut from: a whole answer, for as long as its connection is idle.
        self._rest = rest or _NOTHING
        self._settle()

    def _settle(self) -> None:
        self._is_free = not (self._rest or self._senders or self._is_shut)

    def _lose(self) -> None:
        self._is_gone = self._is_shut = True
        # Reset when it is closed: the kernel would keep what the client does not take, and try for minutes.
        self._set_option(socket.SO_LINGER, _RESET)
        self._keep(_NOTHING)
        self._on_gone()

    def _set_option(self, option: int, value: int | bytes) -> None:
        """Set an option of the socket, under TLS too; of one that is closed, nothing."""
        transport = getattr(self._stream, "transport_stream", self._stream)
        if isinstance(transport, trio.SocketStream):
            with suppress(OSError):  # Some systems refuse it also for a connection that the client has reset.
                transport.socket.setsockopt(socket.SOL_SOCKET, option, value)

    @classmethod
    def configure(cls, timeout: float, send_buffer: int = SEND_BUFFER) -> None:
        """Let clients take nothing for so many seconds, and the kernel hold so many bytes for each."""
        cls.timeout, cls._end, cls.send_buffer = timeout, inf, send_buffer

    @classmethod
    def hurry(cls, seconds: float) -> None:
        """Give all that is being sent, and is still to be sent, so many seconds at most: the process is ending."""
        cls._end = trio.current_time() + seconds
        for scope in cls._waiting:
            scope.deadline = min(scope.deadline, cls._end)
