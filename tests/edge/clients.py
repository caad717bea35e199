"""Clients that look at each byte of what a server sends, and read it as they like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio

from tests.web.builders import Port, frame, upgrade

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
PATIENCE = 60.0
"""Seconds after which what should come is taken not to: many, as a machine may be busy with something else for some."""


def frames_of(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """A server's whole frames, as opcode and payload, and how many bytes they have; fails where one is not right."""
    frames: list[tuple[int, bytes]] = []
    at = 0
    while len(data) - at >= 2:
        assert data[at] & 0xF0 == 0x80, f"FIN, and nothing reserved: {data[at : at + 20]!r} after {frames[-1:]}"
        opcode, size, head = data[at] & 15, data[at + 1], 2
        assert opcode in {TEXT, CLOSE, PING, PONG}, f"{data[at : at + 20]!r} after {frames[-1:]}"
        assert size < 128, "a server's frames are not masked"
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if len(data) - at < head + size:
            break
        payload = data[at + head : at + head + size]
        if opcode == TEXT:
            json.loads(payload)
        frames.append((opcode, payload))
        at += head + size
    return frames, at


class Raw:
    """A WebSocket client over a raw connection whose handshake was answered."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.received = b""
        self.is_over = False
        """Whether the server has ended the connection."""

    async def read(self, size: int = 1 << 16) -> None:
        """Take something, or learn that it is over."""
        try:
            data = await self.stream.receive_some(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self.received += data
        self.is_over = not data

    async def read_all(self, random: Random | None = None, *, seconds: float = PATIENCE) -> None:
        """Take all until it is over; with ``random`` in dribbles. Fails when it takes too long."""
        with trio.fail_after(seconds):
            while not self.is_over:
                await self.read(random.randint(1, 3000) if random else 1 << 16)
                if random and random.random() < 0.1:
                    await trio.sleep(0.002)

    async def read_until(self, what: bytes, *, seconds: float = PATIENCE) -> None:
        """Take what comes until it holds something."""
        with trio.fail_after(seconds):
            while what not in self.received:
                assert not self.is_over, self.received[-200:]
                await self.read()

    async def send(self, payload: bytes | str, opcode: int = TEXT) -> None:
        await self.stream.send_all(frame(payload, opcode))

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """The whole frames that have come; what is left is no frame yet."""
        return frames_of(self.received)[0]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for opcode, payload in self.frames if opcode == TEXT]

    def end(self) -> tuple[int, str] | None:
        """How the server has closed, once it is over: after a close frame nothing may come, and no half of one."""
        assert self.is_over
        frames, size = frames_of(self.received)
        closes = [index for index, (opcode, _) in enumerate(frames) if opcode == CLOSE]
        if not closes:
            return None
        assert closes == [len(frames) - 1], "something came after the close"
        assert size == len(self.received), f"{self.received[size:]!r} came after the close"
        payload = frames[-1][1]
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


async def handshake(stream: Any, path: str, *headers: str) -> Raw:
    """Open a WebSocket over a connection; no byte of its first message is lost."""
    await stream.send_all(upgrade(path, *headers))
    received = b""
    with trio.fail_after(PATIENCE):
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(1)
    assert received.startswith(b"HTTP/1.1 101 "), received
    assert b"extensions" not in received.lower()
    return Raw(stream)


@asynccontextmanager
async def opened(port: Port, path: str, *headers: str, receive_buffer: int | None = None) -> AsyncIterator[Raw]:
    async with await port.connect(receive_buffer=receive_buffer) as stream:
        yield await handshake(stream, path, *headers)


class Http2:
    """A client that speaks HTTP/2 from the first byte on, with one WebSocket or one request in it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration())
        self.status = ""
        self.received = b""
        self.is_over = False
        self.grants = True
        """Whether what has come makes room for more."""

    async def start(self, *headers: tuple[str, str], end_stream: bool = False) -> int:
        """Begin a stream; its number."""
        self.connection.initiate_connection()
        number = self.connection.get_next_available_stream_id()
        self.connection.send_headers(number, headers, end_stream=end_stream)
        await self.flush()
        return number

    async def websocket(self, path: str) -> int:
        """RFC 8441."""
        number = await self.start(
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "candlesync.test"),
            ("sec-websocket-version", "13"),
        )
        await self.read_until_status()
        return number

    async def flush(self) -> None:
        if data := self.connection.data_to_send():
            await self.stream.send_all(data)

    async def send(self, number: int, data: bytes) -> None:
        while data:
            size = min(self.connection.local_flow_control_window(number), 16_384)
            self.connection.send_data(number, data[:size])
            data = data[size:]
            await self.flush()
            if data and not size:
                await self.read()

    async def read(self) -> None:
        try:
            data = await self.stream.receive_some(1 << 16)
        except trio.BrokenResourceError:
            data = b""
        self.is_over = self.is_over or not data
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.status = dict(event.headers)[b":status"].decode()
            elif isinstance(event, h2.events.DataReceived):
                self.received += event.data
                if self.grants:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.is_over = True
        if not self.is_over:
            await self.flush()

    async def read_until_status(self) -> None:
        with trio.fail_after(PATIENCE):
            while not self.status:
                await self.read()

    async def read_until(self, what: bytes) -> None:
        with trio.fail_after(PATIENCE):
            while what not in self.received:
                assert not self.is_over
                await self.read()
