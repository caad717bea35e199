"""HTTP/2 with an end to what costs its client nothing, where Hypercorn goes on for ever.

Frames that carry no request are counted (``edge.frames``); those that a client sends because of ours are not: it grants
us room for each piece of an answer. A thousand requests end a connection, and so a thousand resets do: that is
Hypercorn's own ``keep_alive_max_requests``.
"""

from __future__ import annotations

from typing import Any

import trio
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, TrailersReceived, WindowUpdated
from hypercorn.events import Closed
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.typing import Event as IOEvent

from candlesync.edge.connection import CONNECTION
from candlesync.edge.frames import Frames


class StrictHttp2(H2Protocol):
    """The streams of one connection."""

    def __init__(self, frames: Frames, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._frames = frames
        self._expected = 0
        """Grants of room that what we have sent gives reason for."""

    async def _handle_events(self, events: list[Event]) -> None:
        # One after the other: what one of them makes of a stream, the next must find.
        for event in events:
            if not self._may_come(event):
                self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
                await self._flush()
                await self.send(Closed())
                return
            if isinstance(event, RequestReceived) and not _is_readable(event):
                self.connection.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            elif isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # Of a body whose request is answered: nobody reads it, but it has had its part of the room for all.
                self.connection.increment_flow_control_window(event.flow_controlled_length)
            else:
                await super()._handle_events([event])
        await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        has_data = buffer is not None and bool(buffer.buffer)
        if has_data and self.connection.local_flow_control_window(stream_id) > 0:
            self._expected += 2  # for the stream, and for all of them
        await super()._send_data(stream_id)

    def _may_come(self, event: Event) -> bool:
        match event:
            case RequestReceived() | TrailersReceived() | StreamEnded():
                return True
            case DataReceived() if event.data:
                return True
            case WindowUpdated() if self._expected:
                self._expected -= 1
                return True
        return self._frames.take()


class BoundedBuffer(StreamBuffer):
    """What a stream of HTTP/2 has still to send. Its client may grant it no room, and read all else.

    Hypercorn's takes ever more for such a client, and waits for it for ever. Here what is too much waits, as long as a
    `Line` waits for so many bytes.
    """

    def __init__(self, event_class: type[IOEvent]) -> None:
        super().__init__(event_class)
        self._connection = CONNECTION.get()
        self._shrunk = trio.Event()

    async def push(self, data: bytes) -> None:
        """Add to it, and wait while it holds too much; raises `BufferCompleteError` when nothing more may come."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if trio.lowlevel.current_task() is not self._connection.reader:
            await self._connection.line.expect(len(self.buffer), self._while_full)
        elif len(self.buffer) > 2 * BUFFER_HIGH_WATER:
            # Pongs and pings. Who reads does not wait for room: it would not read that there is some. But a client that
            # asks for pongs and grants no room for them is not to be served.
            self._connection.cut()

    async def drain(self) -> None:
        """Wait until it is empty."""
        await self._connection.line.expect(len(self.buffer), super().drain)

    async def pop(self, max_length: int) -> bytes:
        """Take so many bytes from it at most."""
        data = await super().pop(max_length)
        self._note_shrunk()
        return data

    async def close(self) -> None:
        """Forget what it holds."""
        await super().close()
        self._note_shrunk()

    async def _while_full(self) -> None:
        while len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._shrunk.wait()

    def _note_shrunk(self) -> None:
        self._shrunk.set()
        self._shrunk = trio.Event()


def _is_readable(request: RequestReceived) -> bool:
    """Whether Hypercorn can read it: it wants a path, and all of it in ASCII."""
    told = [value for name, value in request.headers if name in {b":path", b":method"}]
    return len(told) == 2 and all(value.isascii() for value in told)
