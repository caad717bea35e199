"""Candlesync with many series: how it is started, and what it says of itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

from .market import symbols
from .processes import UpstreamProcess
from .servers import CANDLESYNC, Contender, NotReady, Server

UNLIMITED = {
    "CANDLESYNC_MAX_CONNECTIONS": "20000",
    "CANDLESYNC_MAX_CONNECTIONS_PER_ADDRESS": "20000",
    "CANDLESYNC_REQUEST_RATE": "1000000",
}
"""The bench is one address with thousands of clients, which asks as fast as it is answered."""
_EMPTY_WITHIN = 60.0
"""Seconds in which a server must have let go of clients that left."""
_SHARING = 64
"""Symbols on one connection to Binance, as it is done for hundreds of them (``--symbols-per-connection``)."""


def following(count: int, *, sharing: int = _SHARING) -> Contender:
    """Candlesync with so many symbols of the exchange (`exchange`) pinned."""
    settings = {"CANDLESYNC_SYMBOLS": ",".join(symbols(count)), "CANDLESYNC_MAX_SYMBOLS": "1000"}
    return replace(
        CANDLESYNC,
        arguments=tuple(argument for argument in CANDLESYNC.arguments if argument != symbols(1)[0]),
        settings={
            **CANDLESYNC.settings,
            **UNLIMITED,
            **settings,
            "CANDLESYNC_SYMBOLS_PER_CONNECTION": str(sharing),
        },
    )


FAILURES = (NotReady, OSError, RuntimeError, HTTPException)
"""With which a measurement ends, and the others go on."""


@contextmanager
def served(contender: Contender, series: int, log: Path) -> Iterator[tuple[Server, UpstreamProcess]]:
    """A server, and an exchange with so many symbols that it follows. Raises one of `FAILURES`."""
    program = ("benchmark.exchange", str(series))
    with (
        UpstreamProcess(log.with_suffix(".exchange"), program) as exchange,
        Server(contender, exchange.port, log) as server,
    ):
        yield server, exchange


def counters(server: Server, *names: str) -> list[int]:
    """The sums of counters in its ``/metrics``, over all of their labels. Raises `OSError` or `HTTPException`."""
    text = server.get("/metrics")[1].decode()
    return [
        round(sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))
        for name in names
    ]


def wait_until_empty(server: Server) -> None:
    """Wait until it has let go of all clients. Raises `RuntimeError` when it does not, `OSError` or `HTTPException`."""
    deadline = time.monotonic() + _EMPTY_WITHIN
    while (left := counters(server, "candlesync_sockets")[0]) > 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{left} clients that left {_EMPTY_WITHIN:g} s ago are still there")
        time.sleep(0.2)
