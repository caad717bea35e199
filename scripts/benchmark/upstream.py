"""The bench's Binance, a process of its own: REST klines, exchange info, and combined streams.

``python -m benchmark.upstream [SYMBOLS]`` has so many symbols; an update is one frame of each. It is told over standard
input, a JSON line each, how many updates to send and how fast, and answers each order with a line on standard output
that says when each update left. It ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio

from . import market
from .websocket import CLOSE, PING, PONG, TEXT, Frames, accept, frame


@dataclass(frozen=True)
class Order:
    """What the upstream is told."""

    updates: int
    rate: float
    """Updates a second."""


@dataclass(frozen=True)
class Sent:
    """What the upstream did."""

    first: int
    last: int
    """Numbers of the first and the last update sent."""
    sent_at: list[int]
    """When each left (CLOCK_MONOTONIC, nanoseconds)."""
    late: float
    """Seconds that the latest of them was behind its time."""
    connections: int
    """Connections that carried a symbol, of the symbol for which it was not one: one, or something is wrong."""
    ended_at: int = 0
    """When a flood had been read (`exchange`); CLOCK_MONOTONIC, nanoseconds."""


@dataclass
class _Stream:
    """A connection that carries streams."""

    symbols: list[str]
    writing: trio.Lock = field(default_factory=trio.Lock)
    pong: trio.Event = field(default_factory=trio.Event)
    """Set when the other side answers a ping."""


class Upstream:
    """The server."""

    def __init__(self, symbols: int = 1) -> None:
        self._listed = market.symbols(symbols)
        self._names = {market.stream_of(symbol): symbol for symbol in self._listed}
        self._update = 0
        self._streams: dict[trio.SocketStream, _Stream] = {}

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            say({"port": listeners[0].socket.getsockname()[1]})
            async for line in trio.wrap_file(sys.stdin):
                say(asdict(await self._send(Order(**json.loads(line)))))
            nursery.cancel_scope.cancel()

    async def _send(self, order: Order) -> Sent:
        first, sent_at, late = self._update + 1, [], 0.0
        begin = trio.current_time()
        for number in range(order.updates):
            due = begin + number / order.rate
            await trio.sleep_until(due)
            late = max(late, trio.current_time() - due)
            self._update += 1
            frames = {symbol: frame(TEXT, market.kline_frame(self._update, symbol)) for symbol in self._listed}
            messages = [
                (transport, b"".join(frames[symbol] for symbol in stream.symbols))
                for transport, stream in self._streams.items()
            ]
            sent_at.append(time.monotonic_ns())
            for transport, message in messages:
                await self._write(transport, message)
        return Sent(first, self._update, sent_at, late, self._connections())

    def _connections(self) -> int:
        """See `Sent`."""
        carried = Counter(symbol for stream in self._streams.values() for symbol in stream.symbols)
        return next((carried[symbol] for symbol in self._listed if carried[symbol] != 1), 1)

    async def _serve(self, stream: trio.SocketStream) -> None:
        # The server under test may go at any time.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for target, headers in requests(stream):
                url = urlsplit(target)
                if url.path == "/stream":
                    await self._stream(stream, headers[b"sec-websocket-key"], target)
                    return
                await stream.send_all(self._answer(url.path, parse_qs(url.query)))

    def _answer(self, path: str, query: dict[str, list[str]]) -> bytes:
        status = HTTPStatus.OK
        if path == "/api/v3/exchangeInfo":
            body = market.exchange_info(self._listed)
        elif path == "/api/v3/klines":
            start, end = (int(query[name][0]) if name in query else None for name in ("startTime", "endTime"))
            body = market.klines(self._update, limit=int(query.get("limit", ["500"])[0]), start=start, end=end)
        else:
            status, body = HTTPStatus.NOT_FOUND, b"{}"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        return f"{head}\r\n\r\n".encode("ascii") + body

    async def _stream(self, stream: trio.SocketStream, key: bytes, target: str) -> None:
        names = parse_qs(urlsplit(target).query)["streams"][0].split("/")
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await stream.send_all(head + b"Sec-WebSocket-Accept: " + accept(key) + b"\r\n\r\n")
        frames = Frames()
        self._streams[stream] = _Stream([self._names[name] for name in names if name in self._names])
        try:
            async for data in stream:
                for opcode, payload in frames.feed(bytes(data)):
                    if opcode == PING:
                        await self._write(stream, frame(PONG, payload))
                    elif opcode == PONG:
                        self._streams[stream].pong.set()
                    elif opcode == TEXT:
                        await self._write(stream, frame(TEXT, self._subscribe(stream, json.loads(payload))))
                    elif opcode == CLOSE:
                        await self._write(stream, frame(CLOSE, payload))
                        return
        finally:
            del self._streams[stream]

    def _subscribe(self, transport: trio.SocketStream, request: dict[str, Any]) -> bytes:
        """Carry what is asked for; the answer to it."""
        stream = self._streams[transport]
        named = [self._names[name] for name in request["params"] if name in self._names]
        stream.symbols = [symbol for symbol in stream.symbols if symbol not in named]
        if request["method"] == "SUBSCRIBE":
            stream.symbols += named
        return json.dumps({"result": None, "id": request["id"]}).encode("ascii")

    async def _write(self, stream: trio.SocketStream, data: bytes) -> None:
        carried = self._streams.get(stream)
        if carried is not None:
            async with carried.writing:
                # Its own task sees it, too, when the server under test is gone.
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(data)


async def requests(stream: trio.SocketStream) -> AsyncIterator[tuple[str, dict[bytes, bytes]]]:
    """The GET requests of one connection: target and headers. They have no bodies."""
    buffer = b""
    async for data in stream:
        buffer += data
        while b"\r\n\r\n" in buffer:
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            request, *lines = head.split(b"\r\n")
            fields = (line.partition(b":") for line in lines)
            yield request.split()[1].decode("ascii"), {name.lower(): value.strip() for name, _, value in fields}


def say(value: object) -> None:
    """A line to whoever has started this."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    trio.run(Upstream(*map(int, sys.argv[1:])).run)
