"""The servers that are compared: how each is started, and what is asked of it."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from . import market
from .processes import Child

_START_TIMEOUT = 20.0
"""Seconds from its start until a server must be ready."""


@dataclass(frozen=True)
class Contender:
    """One of the servers."""

    name: str
    """As ``--only`` takes it."""
    label: str
    arguments: tuple[str, ...]
    """Its command line, with ``{port}`` for its own port and ``{upstream}`` for the upstream's."""
    socket_path: str
    """Of a WebSocket that sends nothing before the next update."""
    rest_paths: Mapping[str, str]
    """Paths that answer a thousand candles, by a word for the way it is done."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, with the same places to fill."""
    ends_with_zero: bool = False
    """Whether it promises exit status 0 on SIGTERM."""


CANDLESYNC = Contender(
    name="candlesync",
    label="candlesync",
    arguments=(
        str(Path(sys.executable).parent / "candlesync"),
        *("serve", market.SYMBOL, "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
        *("--rest-url", "http://127.0.0.1:{upstream}", "--stream-url", "ws://127.0.0.1:{upstream}"),
    ),
    socket_path=f"/ws/candles/{market.SYMBOL}?replay=0",
    rest_paths={"": f"/candles/{market.SYMBOL}/1m"},
    ends_with_zero=True,
)


def _fastapi(name: str, label: str, loop: str) -> Contender:
    return Contender(
        name=name,
        label=label,
        arguments=(
            *(sys.executable, "-m", "uvicorn", "benchmark.fastapi_peer:app"),
            *("--host", "127.0.0.1", "--port", "{port}", "--loop", loop),
            *("--ws", "websockets-sansio", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ),
        socket_path=f"/ws/candles/{market.SYMBOL}",
        rest_paths={"list": "/candles/plain", "typed list": "/candles/typed", "JSONResponse": "/candles/direct"},
        settings={"PEER_REST_URL": "http://127.0.0.1:{upstream}", "PEER_STREAM_URL": "ws://127.0.0.1:{upstream}"},
    )


CONTENDERS = (
    CANDLESYNC,
    _fastapi("fastapi", "FastAPI", "asyncio"),
    _fastapi("fastapi-uvloop", "FastAPI, uvloop", "uvloop"),
)


class NotReady(Exception):
    """A server that was started and never got ready."""


class Server(Child):
    """A contender that runs."""

    def __init__(self, contender: Contender, upstream: int, log: Path) -> None:
        """Start it against the upstream's port, and wait until it is ready. Raises `NotReady` if it never is."""
        self.contender = contender
        self.port = _free_port()
        places = {"port": self.port, "upstream": upstream}
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
