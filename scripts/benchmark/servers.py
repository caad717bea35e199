"""The servers that are compared: how each is started, and what is asked of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

from candlesync.store.codec import Announcement

from . import market, node
from .processes import Child, free_port

_START_TIMEOUT = 20.0
"""Seconds from its start until a server must be ready."""


@dataclass(frozen=True)
class Contender:
    """One of the servers."""

    name: str
    """As ``--only`` takes it."""
    label: str
    arguments: tuple[str, ...]
    """Its command line, with ``{port}`` for its own port and ``{upstream}`` for the upstream's, ``{symbols}`` and
    ``{streams}`` for what it follows; and, for one of several nodes, ``{redis}`` for the port of their Redis and
    ``{name}`` for its name."""
    socket_path: str
    """Of a WebSocket that sends nothing before the next update, of the first symbol or of all that there are."""
    rest_paths: Mapping[str, str] = field(default_factory=dict)
    """Paths that answer a thousand candles, by a word for the way it is done."""
    many_path: str = ""
    """Of a WebSocket for many series, where ``socket_path`` has only one; each is then subscribed to."""
    missing: Callable[[], str | None] = lambda: None
    """Installs what it needs, and tells what cannot be had."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, with the same places to fill."""
    ends_with_zero: bool = False
    """Whether it promises exit status 0 on SIGTERM."""
    announced_update: Callable[[bytes], int | None] = market.update_of
    """Which update of the market a message in Redis tells of, if it tells of one."""


_PEER_SETTINGS = {
    "PEER_REST_URL": "http://127.0.0.1:{upstream}",
    "PEER_STREAM_URL": "ws://127.0.0.1:{upstream}",
    "PEER_STREAMS": "{streams}",
    "PEER_MESSAGE_SIZE": str(market.MESSAGE_SIZE),
}

CANDLESYNC = Contender(
    name="candlesync",
    label="candlesync",
    arguments=(
        str(Path(sys.executable).parent / "candlesync"),
        *("serve", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
        *("--rest-url", "http://127.0.0.1:{upstream}", "--stream-url", "ws://127.0.0.1:{upstream}"),
    ),
    socket_path=f"/ws/candles/{market.SYMBOL}?replay=0",
    rest_paths={"": f"/candles/{market.SYMBOL}/1m"},
    many_path="/ws/candles",
    # The whole crowd comes from one address, and faster than people do.
    settings={"CANDLESYNC_SYMBOLS": "{symbols}"},
    ends_with_zero=True,
)


def _uvicorn(application: str, loop: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "uvicorn", f"benchmark.{application}:app"),
        *("--host", "127.0.0.1", "--port", "{port}", "--loop", loop),
        *("--ws", "websockets-sansio", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    )


def _fastapi(name: str, label: str, loop: str) -> Contender:
    return Contender(
        name=name,
        label=label,
        arguments=_uvicorn("fastapi_peer", loop),
        socket_path=f"/ws/candles/{market.SYMBOL}",
        rest_paths={"list": "/candles/plain", "typed list": "/candles/typed", "JSONResponse": "/candles/direct"},
        settings=_PEER_SETTINGS,
    )


FASTAPI = _fastapi("fastapi", "FastAPI", "asyncio")
FASTAPI_UVLOOP = _fastapi("fastapi-uvloop", "FastAPI, uvloop", "uvloop")
WEBSOCKETS = Contender(
    name="websockets",
    label="websockets.broadcast, uvloop",
    arguments=(sys.executable, "-m", "benchmark.websockets_peer", "{port}"),
    socket_path="/",
    settings=_PEER_SETTINGS,
)
NODE_WS = Contender(
    name="node-ws",
    label="node ws",
    arguments=("node", str(node.PROGRAM), "{port}"),
    socket_path="/",
    missing=node.missing,
    settings={**_PEER_SETTINGS, "NODE_PATH": str(node.FOLDER / "node_modules")},
)
RAW = Contender(
    name="raw",
    label="raw socket.send",
    arguments=(sys.executable, "-m", "benchmark.raw_peer", "{port}"),
    socket_path="/",
    settings=_PEER_SETTINGS,
)
CONTENDERS = (CANDLESYNC, FASTAPI, FASTAPI_UVLOOP, WEBSOCKETS, NODE_WS, RAW)


def _committed_update(message: bytes) -> int | None:
    try:
        commit = msgspec.msgpack.decode(message, type=Announcement).commit()
    except ValueError:
        return None  # an owner's report, say
    return int(commit.candles[-1].volume.partition(".")[0]) if commit else None


def _fastapi_node(alone: Contender, loop: str) -> Contender:
    return replace(
        alone,
        arguments=_uvicorn("fastapi_redis_peer", loop),
        rest_paths={"parsed": "/candles/parsed", "joined": "/candles/joined"},
        settings={**alone.settings, "PEER_REDIS_URL": "redis://127.0.0.1:{redis}/0", "PEER_NAME": "{name}"},
    )


NODES = (
    replace(
        CANDLESYNC,
        arguments=(
            *CANDLESYNC.arguments,
            *("--store", "redis://127.0.0.1:{redis}/0", "--node-name", "{name}"),
        ),
        announced_update=_committed_update,
    ),
    _fastapi_node(FASTAPI, "asyncio"),
    _fastapi_node(FASTAPI_UVLOOP, "uvloop"),
)
"""The same, as several nodes with one Redis. ``/ready`` of each tells its name and the names of the owners."""


class NotReady(Exception):
    """A server that was started and never got ready."""


class Server(Child):
    """A contender that runs."""

    def __init__(
        self,
        contender: Contender,
        upstream: int,
        log: Path,
        *,
        redis: int = 0,
        name: str = "",
        symbols: Sequence[str] = (market.SYMBOL,),
    ) -> None:
        """Start it against the ports of the upstream and of Redis, and wait until it is ready and follows ``symbols``.

        Raises `NotReady` if it never is.
        """
        self.contender = contender
        self.port = free_port()
        self.name = name
        places = {
            "port": self.port,
            "upstream": upstream,
            "redis": redis,
            "name": name,
            "symbols": ",".join(symbols),
            "streams": "/".join(map(market.stream_of, symbols)),
        }
        settings = {name: value.format(**places) for name, value in contender.settings.items()}
        super().__init__([argument.format(**places) for argument in contender.arguments], log, settings)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def get(self, path: str) -> tuple[int, bytes]:
        """One GET, on a connection of its own: status and body. Raises `OSError` or `HTTPException`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10.0)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while self.is_alive and time.monotonic() < deadline:
            try:
                if self.get("/ready")[0] == 200:
                    return
            except (OSError, HTTPException):
                pass  # it does not listen yet
            time.sleep(0.05)
        raise NotReady(f"not ready within {_START_TIMEOUT:g} s, or ended:\n{self.excerpt()}")
