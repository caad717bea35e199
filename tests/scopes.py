"""ASGI scopes as Hypercorn 0.18 makes them of requests over HTTP/1.1 (``hypercorn/protocol``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

HOST = (b"host", b"candlesync.test")


def http_scope(target: str, headers: Iterable[tuple[bytes, bytes]] = (HOST,), *, method: str = "GET") -> dict[str, Any]:
    """Of a request for a path and perhaps a query."""
    return {"type": "http", "scheme": "http", "method": method, **_common(target, headers, "2.1"), "extensions": {}}


def websocket_scope(target: str) -> dict[str, Any]:
    """Of a WebSocket's handshake. Such a server can answer a refusal (``websocket.http.response``)."""
    return {
        "type": "websocket",
        "scheme": "ws",
        **_common(target, (HOST,), "2.3"),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }


def _common(target: str, headers: Iterable[tuple[bytes, bytes]], spec_version: str) -> dict[str, Any]:
    raw_path, _, query = target.partition("?")
    return {
        "asgi": {"spec_version": spec_version, "version": "3.0"},
        "http_version": "1.1",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
