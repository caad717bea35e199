"""Bare ASGI with a ready body: what Hypercorn itself takes for an answer, with no framework above it.

``PEER_BODY`` names a file with the body; its gzip and its ETag are made once. Nothing is looked up but the path and two
headers.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

_ETAG = b'"1700000040-1000"'
_BODY = Path(os.environ["PEER_BODY"]).read_bytes()
_SHORT = gzip.compress(_BODY, 6)
_COMMON: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache"), (b"etag", _ETAG)]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one request, or the lifespan."""
    if scope["type"] == "lifespan":
        while (kind := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{kind}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    asked = dict(scope["headers"])
    status, body, headers = 200, _BODY, _COMMON
    if scope["path"] == "/ready":
        body = b""
    elif asked.get(b"if-none-match") == _ETAG:
        status, body = 304, b""
    elif b"gzip" in asked.get(b"accept-encoding", b""):
        body, headers = _SHORT, [*_COMMON, (b"content-encoding", b"gzip")]
    if status == 200:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
