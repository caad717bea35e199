"""The upstream for measurements of many series, a process of its own: ``python -m benchmark.exchange SYMBOLS``.

It sends in two other ways than the upstream (`upstream`) that it is otherwise. An `Order` counts rounds, in each of
which every symbol shows the next update, spread evenly over the round. And an order with the rate 0 makes a flood
ready, of so many rounds without any pause; the next one with the rate 0 and no rounds pours it out, as fast as it is
taken. It ends with a ping: `Sent.ended_at` is when the pong came, and so when the other side had read it all.
"""

from __future__ import annotations

import sys
import time

import trio

from . import market
from .upstream import Order, Sent, Upstream
from .websocket import PING, TEXT, frame

_CHUNK = 2**16
"""Bytes of a flood that are written at a time."""
_PATIENCE = 120.0
"""Seconds in which a flood must be answered."""


class Exchange(Upstream):
    """The server."""

    def __init__(self, symbols: int) -> None:
        super().__init__(symbols)
        self._flood: dict[trio.SocketStream, bytes] = {}

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
            shown = [(transport, symbol) for transport, stream in self._streams.items() for symbol in stream.symbols]
            for place, (transport, symbol) in enumerate(shown):
                due = begin + (number + place / len(shown)) / order.rate
                await trio.sleep_until(due)
                late = max(late, trio.current_time() - due)
                await self._write(transport, frame(TEXT, market.kline_frame(self._update, symbol)))
        return Sent(first, self._update, sent_at, late, self._connections())

    async def _make_flood(self, updates: int) -> Sent:
        first = self._update + 1
        frames: dict[trio.SocketStream, list[bytes]] = {transport: [] for transport in self._streams}
        for _ in range(updates):
            self._update += 1
            for transport, made in frames.items():
                symbols = self._streams[transport].symbols
                made += [frame(TEXT, market.kline_frame(self._update, symbol)) for symbol in symbols]
            await trio.lowlevel.checkpoint()  # a server may have something to ask
        self._flood = {transport: b"".join(made) for transport, made in frames.items()}
        return Sent(first, self._update, [], 0.0, self._connections())

    async def _pour_flood(self) -> Sent:
        flood, self._flood = self._flood, {}
        begin = time.monotonic_ns()
        with trio.fail_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                for transport, data in flood.items():
                    nursery.start_soon(self._pour, transport, data)
        return Sent(self._update, self._update, [begin], 0.0, self._connections(), time.monotonic_ns())

    async def _pour(self, transport: trio.SocketStream, flood: bytes) -> None:
        pong = self._streams[transport].pong = trio.Event()
        for begin in range(0, len(flood), _CHUNK):
            await self._write(transport, flood[begin : begin + _CHUNK])
        await self._write(transport, frame(PING, b"flood"))
        await pong.wait()


if __name__ == "__main__":
    trio.run(Exchange(int(sys.argv[1])).run)
