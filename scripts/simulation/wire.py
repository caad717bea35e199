"""A TCP connection in memory, which may go half-open.

``trio.testing.memory_stream_pair`` does the same; looking for mistakes of its users, it waits two steps more for each
message at either end. Those were a tenth of a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio


class Way:
    """One direction of a connection: what is sent at one end is received at the other."""

    def __init__(self) -> None:
        self.is_cut = False
        """Whether nothing that happens at one end is noticed at the other any more."""
        self._data = bytearray()
        self._is_ended = False
        """Whether the sender has closed it."""
        self._is_over = False
        """Whether the receiver knows that."""
        self._is_left = False
        """Whether the receiver has closed it."""
        self._changed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await trio.lowlevel.checkpoint()
        if self._is_ended:
            raise trio.ClosedResourceError
        if self.is_cut:
            return
        if self._is_left:
            raise trio.BrokenResourceError
        self._data += data
        self._changed.set()

    async def receive_some(self, max_bytes: int | None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if self._data or self._is_over or self._is_left:
            await trio.lowlevel.checkpoint()
        while not (self._data or self._is_over or self._is_left):
            self._changed = trio.Event()
            await self._changed.wait()
        if self._is_left:
            raise trio.ClosedResourceError
        size = len(self._data) if max_bytes is None else max_bytes
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def end(self) -> None:
        """Close it as its sender."""
        self._is_ended = True
        if not self.is_cut:
            self._is_over = True
            self._changed.set()

    def leave(self) -> None:
        """Close it as its receiver."""
        self._is_left = True
        self._changed.set()


class _SendEnd(trio.abc.SendStream):
    def __init__(self, way: Way) -> None:
        self._way = way

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._way.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._way.end()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class _ReceiveEnd(trio.abc.ReceiveStream):
    def __init__(self, way: Way) -> None:
        self._way = way

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._way.receive_some(max_bytes)

    def close(self) -> None:
        self._way.leave()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


WireEnd = trio.StapledStream[_SendEnd, _ReceiveEnd]
"""One end of a connection."""


class Wire:
    """A connection and both its ends."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = symbols
        """What it carries."""
        self._ways = Way(), Way()
        out, back = self._ways
        self.client_end: WireEnd = trio.StapledStream(_SendEnd(out), _ReceiveEnd(back))
        self.server_end: WireEnd = trio.StapledStream(_SendEnd(back), _ReceiveEnd(out))

    def cut(self) -> None:
        """Let nothing arrive at either end any more, not even that the other has closed."""
        for way in self._ways:
            way.is_cut = True
