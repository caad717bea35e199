"""Candlesync with many series: how it is started, and what it says of itself."""

from __future__ import annotations

import re
from dataclasses import replace

from .exchange import symbols
from .servers import CANDLESYNC, Contender, Server

UNLIMITED = {
    "CANDLESYNC_MAX_CONNECTIONS": "20000",
    "CANDLESYNC_MAX_CONNECTIONS_PER_ADDRESS": "20000",
    "CANDLESYNC_REQUEST_RATE": "1000000",
}
"""The bench is one address with thousands of clients, which asks as fast as it is answered."""
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


def counters(server: Server, *names: str) -> list[int]:
    """The sums of counters in its ``/metrics``, over all of their labels. Raises `OSError` or `HTTPException`."""
    text = server.get("/metrics")[1].decode()
    return [
        round(sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))
        for name in names
    ]
