"""The bench's Binance with many symbols, a process of its own: ``python -m benchmark.exchange SYMBOLS``.

It is the upstream (`upstream`) with two differences. It lists so many symbols, and every one of them shows the same
market: an `Order` counts rounds, in each of which every symbol that is streamed shows the next update, spread evenly
over the round. And an order with the rate 0 makes a flood ready, of so many rounds without any pause; the next one with
the rate 0 and no rounds pours it out, as fast as it is taken. It ends with a ping: `Sent.ended_at` is when the pong
came, and so when the other side had read it all.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache, partial
from urllib.parse import parse_qs, urlsplit

import trio

from . import market
from .upstream import Order, Sent, requests, say
from .websocket import CLOSE, PING, PONG, TEXT, Frames, accept, frame

_CHUNK = 2**16
"""Bytes of a flood that are written at a time."""
_PATIENCE = 120.0
"""Seconds in which a flood must be answered."""


def symbols(count: int) -> tuple[str, ...]:
    """Their names; the first is the one that the whole bench knows."""
    return (market.SYMBOL, *(f"B{number:04}USDT" for number in range(1, count)))


def kline_frame(symbol: str, update: int) -> bytes:
    """The combined stream's message that shows an update of a symbol's forming candle."""
    shown = _shown(update)
    if symbol == market.SYMBOL:
        return shown
    names = (market.SYMBOL.encode(), symbol.encode())
    return shown.replace(*names).replace(names[0].lower(), names[1].lower())


@lru_cache(8)
def _klines(update: int, limit: int, start: int | None, end: int | None) -> bytes:
    return market.klines(update, limit=limit, start=start, end=end)


@lru_cache(8)
def _shown(update: int) -> bytes:
    return market.kline_frame(update)


class _Follower:
    """A connection that follows streams."""

    def __init__(self, stream: trio.SocketStream, names: list[str]) -> None:
        self.stream = stream
        self.names = dict.fromkeys(names)
        """The streams, in the order in which they were asked for."""
        self.sending = trio.Lock()
        self.pong = trio.Event()

    async def send(self, data: bytes) -> None:
        """Write whole frames; nothing, when the other side is gone."""
        async with self.sending:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_all(data)


class Exchange:
    """The server."""

    def __init__(self, count: int) -> None:
        self._update = 0
        self._symbols = {name.lower(): name for name in symbols(count)}
        self._followers: set[_Follower] = set()
        self._flood: dict[_Follower, bytes] = {}

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            say({"port": listeners[0].socket.getsockname()[1]})
            async for line in trio.wrap_file(sys.stdin):
                say(asdict(await self._send(Order(**json.loads(line)))))
            nursery.cancel_scope.cancel()

    async def _send(self, order: Order) -> Sent:
        if order.rate:
            return await self._send_rounds(order)
        return await (self._make_flood(order.updates) if order.updates else self._pour_flood())

    async def _send_rounds(self, order: Order) -> Sent:
        first, sent_at, late = self._update + 1, [], 0.0
        begin = trio.current_time()
        for number in range(order.updates):
            self._update += 1
            sent_at.append(time.monotonic_ns())
            shown = [(follower, name) for follower in self._followers for name in follower.names]
            for place, (follower, name) in enumerate(shown):
                due = begin + (number + place / len(shown)) / order.rate
                await trio.sleep_until(due)
                late = max(late, trio.current_time() - due)
                await follower.send(frame(TEXT, self._frame(name)))
        return Sent(first, self._update, sent_at, late, len(self._followers))

    async def _make_flood(self, updates: int) -> Sent:
        first = self._update + 1
        frames: dict[_Follower, list[bytes]] = {follower: [] for follower in self._followers}
        for _ in range(updates):
            self._update += 1
            for follower, made in frames.items():
                made += [frame(TEXT, self._frame(name)) for name in follower.names]
            await trio.lowlevel.checkpoint()  # a server may have something to ask
        self._flood = {follower: b"".join(made) for follower, made in frames.items()}
        return Sent(first, self._update, [], 0.0, len(self._followers))

    async def _pour_flood(self) -> Sent:
        flood, self._flood = self._flood, {}
        begin = time.monotonic_ns()
        with trio.fail_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                for follower, data in flood.items():
                    nursery.start_soon(_pour, follower, data)
        return Sent(self._update, self._update, [begin], 0.0, len(self._followers), time.monotonic_ns())

    def _frame(self, stream: str) -> bytes:
        return kline_frame(self._symbols[stream.partition("@")[0]], self._update)

    async def _serve(self, stream: trio.SocketStream) -> None:
        # The server under test may go at any time.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for target, headers in requests(stream):
                url, query = urlsplit(target), parse_qs(urlsplit(target).query)
                if url.path == "/stream":
                    await self._stream(stream, headers[b"sec-websocket-key"], query["streams"][0].split("/"))
                    return
                await stream.send_all(self._answer(url.path, query))

    def _answer(self, path: str, query: dict[str, list[str]]) -> bytes:
        if path == "/api/v3/exchangeInfo":
            info = json.loads(market.exchange_info())
            (shape,) = info["symbols"]
            info["symbols"] = [{**shape, "symbol": name} for name in self._symbols.values()]
            return _http(200, json.dumps(info).encode())
        if path == "/api/v3/klines":
            start, end = (int(query[name][0]) if name in query else None for name in ("startTime", "endTime"))
            return _http(200, _klines(self._update, int(query.get("limit", ["500"])[0]), start, end))
        return _http(404, b"{}")

    async def _stream(self, stream: trio.SocketStream, key: bytes, names: list[str]) -> None:
        follower = _Follower(stream, names)
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await follower.send(head + b"Sec-WebSocket-Accept: " + accept(key) + b"\r\n\r\n")
        frames = Frames()
        self._followers.add(follower)
        try:
            async for data in stream:
                for opcode, payload in frames.feed(bytes(data)):
                    if opcode == PING:
                        await follower.send(frame(PONG, payload))
                    elif opcode == PONG:
                        follower.pong.set()
                    elif opcode == CLOSE:
                        await follower.send(frame(CLOSE, payload))
                        return
                    elif opcode == TEXT:
                        await follower.send(frame(TEXT, _acknowledge(follower, json.loads(payload))))
        finally:
            self._followers.discard(follower)


async def _pour(follower: _Follower, flood: bytes) -> None:
    follower.pong = trio.Event()
    for begin in range(0, len(flood), _CHUNK):
        await follower.send(flood[begin : begin + _CHUNK])
    await follower.send(frame(PING, b"flood"))
    await follower.pong.wait()


def _acknowledge(follower: _Follower, request: dict[str, object]) -> bytes:
    names = request["params"]
    assert isinstance(names, list)  # noqa: S101 - as Binance documents it, and as candlesync sends it
    for name in names:
        if request["method"] == "SUBSCRIBE":
            follower.names[name] = None
        else:
            follower.names.pop(name, None)
    return json.dumps({"result": None, "id": request["id"]}).encode()


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


if __name__ == "__main__":
    trio.run(Exchange(int(sys.argv[1])).run)
