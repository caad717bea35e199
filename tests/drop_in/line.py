"""The network between the clients and the server, which can break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import trio

from tests.whole.proxy import Proxy

_CLOSED, _FORMING = b'"x":true', b'"x":false'


class Line(Proxy):
    """Passes connections on, and breaks those that carry candles when it is told to."""

    def __init__(self, target: int, calm: float) -> None:
        """``calm``: seconds after a close at which a connection breaks."""
        super().__init__(target)
        self._calm = calm
        self.broken = 0
        """Connections that were broken."""
        self._streams: set[trio.SocketStream] = set()
        """Towards the clients: the connections that have carried a candle."""
        self._doomed: set[trio.SocketStream] = set()

    @property
    def is_breaking(self) -> bool:
        """Whether a connection that is to break still waits for its calm moment."""
        return bool(self._doomed)

    def break_streams(self) -> None:
        """Break each connection that streams candles now, without a word, in the middle of a minute.

        What a connection took counts as received. So a close that is on its way when its line breaks is lost, and so is
        one that a client has taken from the network and not given to its program yet: python-binance throws away what
        it still holds when its connection has ended. A break between two closes meets neither.
        """
        self._doomed |= self._streams

    async def _pass(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        closed_at = inf
        try:
            async for data in source:
                await self._open.wait()
                await sink.send_all(data)
                now = trio.current_time()
                if _CLOSED in data:
                    closed_at = now
                elif _FORMING in data:
                    self._streams.add(sink)
                    if sink in self._doomed and now >= closed_at + self._calm:
                        self.broken += 1
                        break
        finally:
            self._streams.discard(sink)
            self._doomed.discard(sink)
        both.cancel()


@asynccontextmanager
async def run_line(target: int, calm: float) -> AsyncIterator[Line]:
    """A way to a port of this machine, for as long as the block lasts; see `Line`."""
    line = Line(target, calm)
    async with trio.open_nursery() as nursery:
        await nursery.start(line.serve)
        yield line
        nursery.cancel_scope.cancel()
