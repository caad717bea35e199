"""What reaches Binance: a relay before the simulator that reads what is asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import trio

from candlesync.binance.public_paths import SPOT_API

_HEAD = re.compile(rb"GET (\S+) HTTP/1\.1\r\n(?:[A-Za-z0-9-]+: [\x20-\x7e]*\r\n)+")
_STREAMS = re.compile(r"(?:[^/@\s]{1,50}@kline_(?:[0-9]{1,2}[smhdwM]))(?:/[^/@\s]{1,50}@kline_[0-9]{1,2}[smhdwM])*")
_PARAMETERS = {path.path: path.parameters for path in SPOT_API.paths}
_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


def fault_of(head: bytes) -> str:
    """What is wrong with a request that was sent to Binance; empty when it is as documented."""
    found = _HEAD.fullmatch(head + b"\r\n")
    if found is None:
        return f"no request of ours: {head[:300]!r}"
    parts = urlsplit(found[1].decode("ascii", "replace"))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if parts.path in _PARAMETERS:
        known = _PARAMETERS[parts.path]
        wrong = [f"{name}={value!r}" for name, value in pairs if name not in known or not known[name].allows(value)]
        return f"{parts.path} with {', '.join(wrong)}" if wrong else ""
    if parts.path in {"/ws", "/stream"} or parts.path.startswith("/ws/"):
        names = [
            parts.path.removeprefix("/stream").removeprefix("/ws").removeprefix("/"),
            *(value for name, value in pairs if name == "streams"),
        ]
        wrong = [name for name in names if name and not _STREAMS.fullmatch(name)]
        return f"{parts.path} with {', '.join(wrong)}" if wrong else ""
    return f"a path that is none: {found[1]!r}"


class Upstream:
    """What was asked so far."""

    def __init__(self) -> None:
        self.requests = 0
        self.faults: list[str] = []
        self.host = ""

    def note(self, head: bytes) -> None:
        """A request went through."""
        self.requests += 1
        fault = fault_of(head)
        if fault:
            self.faults.append(fault)


@asynccontextmanager
async def relayed(host: str) -> AsyncIterator[Upstream]:
    """A way to ``host`` that notes what is asked, until the block ends."""
    upstream = Upstream()
    name, _, port = host.rpartition(":")

    async def serve(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream(name, int(port)) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_pass, server, client, None, nursery.cancel_scope)
            nursery.start_soon(_pass, client, server, upstream, nursery.cancel_scope)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield upstream
        nursery.cancel_scope.cancel()


async def _pass(
    source: trio.SocketStream, to: trio.SocketStream, upstream: Upstream | None, scope: trio.CancelScope
) -> None:
    head = b""
    is_socket = False
    try:
        async for data in source:
            if upstream is not None and not is_socket:
                head += data
                while b"\r\n\r\n" in head and not is_socket:
                    one, _, head = head.partition(b"\r\n\r\n")
                    upstream.note(one)
                    is_socket = b"upgrade: websocket" in one.lower()  # frames follow
            await to.send_all(data)
    except _ENDS:
        pass
    scope.cancel()
