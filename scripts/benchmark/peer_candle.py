"""What the Python peers send: a candle, with what today's servers put beside it, as long as candlesync's message is.

A position is what they do not have; they send a text of its length in its place, so that all messages are of one size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from . import market

Candle = dict[str, Any]

_AROUND = len(',"position":""')
_encode = json.JSONEncoder(separators=(",", ":")).encode


def stream_url() -> str:
    """Where a peer follows Binance: the combined stream of all that it was told to follow."""
    return f"{os.environ['PEER_STREAM_URL']}/stream?streams={os.environ['PEER_STREAMS']}"


def candle_of(opened: int, decimals: Sequence[str], *, closed: bool, symbol: str = market.SYMBOL) -> Candle:
    """A candle as charts take it; its decimals are open, high, low, close and volume."""
    o, h, low, c, v = map(float, decimals)
    return {
        "symbol": symbol,
        "interval": "1m",
        "time": opened // 1000,
        "open": o,
        "high": h,
        "low": low,
        "close": c,
        "volume": v,
        "closed": closed,
    }


def candle_in(frame: str | bytes) -> Candle:
    """The candle that a message of Binance's combined stream shows."""
    k = json.loads(frame)["data"]["k"]
    return candle_of(k["t"], (k["o"], k["h"], k["l"], k["c"], k["v"]), closed=k["x"], symbol=k["s"])


def message_of(candle: Candle) -> str:
    """What is sent for it: made once, for all clients."""
    text = _encode(candle)
    return f'{text[:-1]},"position":"{"-" * (market.MESSAGE_SIZE - len(text) - _AROUND)}"}}'
