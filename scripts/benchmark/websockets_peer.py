"""The peer: ``websockets.broadcast`` on uvloop, as its documentation does it.

``python -m benchmark.websockets_peer PORT``. Compression and pings are as they come: permessage-deflate is agreed on
with whoever offers it.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from .peer_candle import candle_in, message_of, stream_url

clients: set[ServerConnection] = set()
following = asyncio.Event()


async def follow() -> None:
    """Read Binance's stream and send each update to every client."""
    async with connect(stream_url(), compression=None) as stream:
        following.set()
        async for message in stream:
            broadcast(clients, message_of(candle_in(message)))


async def live(client: ServerConnection) -> None:
    """Every update from now on."""
    clients.add(client)
    try:
        await client.wait_closed()
    finally:
        clients.discard(client)


def answer(client: ServerConnection, request: Request) -> Response | None:
    """``/ready``: whether it follows the stream."""
    if request.path != "/ready":
        return None
    return client.respond(HTTPStatus.OK if following.is_set() else HTTPStatus.SERVICE_UNAVAILABLE, "")


async def main() -> None:
    """Serve until it is killed."""
    async with serve(live, "127.0.0.1", int(sys.argv[1]), process_request=answer):
        await follow()


if __name__ == "__main__":
    uvloop.run(main())
