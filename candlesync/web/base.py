"""An open WebSocket, whatever is spoken on it: a task that reads, and one that writes while there is something to send.

The writer is started when the `Outbox` has something, sends what each subscriber has not been sent, and ends.
Everything that ends the socket goes through `Session.close`, which cancels both and leaves the close to be sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from candlesync.core import wire
from candlesync.core.allowance import Pace, Verdict
from candlesync.hub import HeardLine, Line, Outbox, Subscriber

Receive = Callable[[], Awaitable[str | bytes | None]]
Send = Callable[[str], Awaitable[None]]


class Closing(msgspec.Struct, frozen=True):
    """How a socket ends: the WebSocket close code and its reason."""

    code: int
    reason: str
    counted_as: str = ""
    """What it is among the evictions, where the reason has words of its own."""


GOING_DOWN = Closing(1012, "going_down")
"""Come back, with your position (RFC 6455's registry: 1012 service restart)."""
BINARY = Closing(1003, "binary_message")
TOO_SLOW = Closing(1013, "too_slow")
"""Come back later, with your position (1013 try again later)."""
TOO_MANY = Closing(4429, "too_many")
"""Of a client that goes on sending at more than twice its rate."""

PATIENCE = 60.0
"""Seconds that a client may be waited for, beyond those in which it need not be; then it is too slow for it all."""


class Channel(msgspec.Struct, frozen=True):
    """What a session speaks through."""

    receive: Receive
    send: Send
    line: HeardLine | None = None
    """The connection itself, where it can be written to."""


class Session(ABC):
    """One open socket."""

    _enough = TOO_MANY
    """How a client is told that goes on sending too fast."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._line: Line | None = channel.line
        self._nursery: trio.Nursery | None = None
        """While the socket is served."""
        self._is_writing = False
        self._is_behind = False
        """Whether something is to be pushed, though nobody may be marked."""
        self._sending = trio.Lock()
        self._scope = trio.CancelScope()
        self._closing: Closing | None = None
        self._lag = 0.0
        """Seconds that the client was waited for, less those in which it was not."""
        self._waited_until = 0.0
        self.outbox = Outbox(self._wake)
        self.sent = 0
        """Messages sent, but for those that the hub has written."""
        self.pace = Pace(0, 1)
        """How fast the client may send; without a limit until one is set."""
        self.refused = 0
        """Messages that came too fast."""

    async def run(self) -> Closing:
        """Serve the socket until something ends it; how to close it. The client's leaving comes as cancellation."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._wake()
                    try:
                        await self._read(nursery)
                    finally:
                        self._nursery = None  # it takes no more tasks once it is left
        finally:
            self.end()
        return self._closing or Closing(1000, "")

    def close(self, closing: Closing) -> None:
        """End the socket. The first call counts."""
        self._closing = self._closing or closing
        self._scope.cancel()

    async def send(self, messages: Iterable[bytes]) -> None:
        """Send messages in order, with nothing of others between them."""
        async with self._sending:
            if self._line is None:
                for message in messages:
                    await self._channel.send(message.decode("utf-8"))
                    self.sent += 1
                return
            for count, frames in wire.batches(messages):
                await self._push(self._line, frames)
                self.sent += count

    async def _push(self, line: Line, frames: bytes) -> None:
        began = trio.current_time()
        if await line.push(frames):
            return
        now = trio.current_time()
        began = max(began, self._waited_until)  # two tasks may have waited at once, for one client
        self._lag = max(0.0, self._lag - (began - self._waited_until)) + (now - began)
        self._waited_until = now
        if self._lag > PATIENCE:
            self.close(TOO_SLOW)

    def _fall_behind(self) -> None:
        """Have the writer push: the line has not taken all that it was given."""
        self._is_behind = True
        self._wake()

    def _wake(self) -> None:
        """Start the writer, if it does not run."""
        if self._nursery is not None and not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        """Send until there is nothing to send any more. Started anew for what is marked after that."""
        is_done = False
        while not is_done:
            self._is_behind = False
            # What the hub has written in part, or not yet, goes out first.
            if self._line is not None:
                await self._push(self._line, b"")
            # No await from here to the end when there is nothing: what is marked meanwhile would start no writer.
            ready = self.outbox.take()
            if ready:
                await self._serve(ready)
            is_done = not (ready or self._is_behind)
        self._is_writing = False

    @abstractmethod
    async def _serve(self, subscribers: list[Subscriber]) -> None:
        """Send subscribers what they have not been sent."""

    @abstractmethod
    async def _hear(self, message: str, nursery: trio.Nursery, *, is_too_fast: bool) -> None:
        """Do and answer what the client's message says, or tell the client that it came too fast."""

    @abstractmethod
    def end(self) -> None:
        """Let go of the subscriptions; nothing is left to do when it is called again."""

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            message = await self._channel.receive()
            if not isinstance(message, str):
                self.close(BINARY)
                continue
            verdict = self.pace.take(trio.current_time())
            self.refused += verdict is not Verdict.TAKEN
            if verdict is Verdict.ENOUGH:
                self.close(self._enough)
                continue
            await self._hear(message, nursery, is_too_fast=verdict is Verdict.REFUSED)
