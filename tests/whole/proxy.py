"""A way to the server that can be cut, and led elsewhere: a name that a failover points at another machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Proxy:
    """Passes TCP connections on to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._open = trio.Event()
        self._open.set()
        self._connections: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Let nothing through, in either direction, and say nothing of it: a cable that was pulled."""
        self._open = trio.Event()

    def mend(self) -> None:
        """Let everything through again, also what was sent meanwhile."""
        self._open.set()

    def lead_to(self, target: int) -> None:
        """Break all connections; new ones go elsewhere."""
        self._target = target
        for connection in list(self._connections):
            connection.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._connect, listeners)

    async def _connect(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                await self._open.wait()
                async with await trio.open_tcp_stream("127.0.0.1", self._target) as server, trio.open_nursery() as both:
                    both.start_soon(self._pass, client, server, both.cancel_scope)
                    both.start_soon(self._pass, server, client, both.cancel_scope)
            except* (OSError, trio.BrokenResourceError):
                pass
            finally:
                self._connections.discard(scope)

    async def _pass(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        async for data in source:
            await self._open.wait()
            await sink.send_all(data)
        both.cancel()


@asynccontextmanager
async def run_proxy(target: int) -> AsyncIterator[Proxy]:
    """A way to a port of this machine, for as long as the block lasts."""
    proxy = Proxy(target)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()
