"""What the bench's Binance shows: a thousand closed minutes and one that is forming, for ever.

The whole part of the forming candle's volume is the number of the last update, of every symbol at once. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

SYMBOL = "BTCUSDT"
"""The first symbol, and the only one where nothing else is said."""
STREAM = "btcusdt@kline_1m"
CANDLES = 1000
"""Of one REST answer, at Binance and at the servers under test."""
MINUTE = 60_000
_FORMING = 1_700_000_040_000
"""Open time of the forming candle, on the minute grid. No server may care that it is long past."""

MESSAGE_SIZE = 214
"""Bytes of candlesync's message for an update, its position included: peers fill theirs up to it."""

_SYMBOL = re.compile(rb'"symbol":\s*"([^"]+)"')
_VOLUME = re.compile(rb'"volume":\s*(\d+)\.')
_REVISION = re.compile(rb'"rev":\s*(\d+)')


def symbols(count: int) -> list[str]:
    """So many symbols, at most 1000; all names are of one length."""
    return [SYMBOL, *(f"{number:03}USDT" for number in range(1, count))]


def stream_of(symbol: str) -> str:
    """The name of a symbol's stream of 1m klines."""
    return f"{symbol.lower()}@kline_1m"


def exchange_info(names: Sequence[str] = (SYMBOL,)) -> bytes:
    """The answer to ``/api/v3/exchangeInfo`` when it lists these symbols."""
    listed = [
        {
            "symbol": name,
            "status": "TRADING",
            "baseAsset": name.removesuffix("USDT"),
            "quoteAsset": "USDT",
            "isSpotTradingAllowed": True,
        }
        for name in names
    ]
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
    return _encode({"timezone": "UTC", "serverTime": _FORMING, "rateLimits": [limit], "symbols": listed})


@lru_cache(8)  # hundreds of series begin with the same
def klines(update: int, *, limit: int, start: int | None = None, end: int | None = None) -> bytes:
    """The answer to ``/api/v3/klines`` after so many updates; times in milliseconds, both inclusive."""
    rows = [_row(_FORMING - back * MINUTE, update) for back in range(CANDLES, -1, -1)]
    chosen = [row for row in rows if (start or 0) <= int(row[0]) and (end is None or int(row[0]) <= end)]
    # As Binance does it: with a start the oldest, without one the newest.
    return _encode(chosen[:limit] if start is not None else chosen[-limit:])


def kline_frame(update: int, symbol: str = SYMBOL) -> bytes:
    """The combined stream's message that shows an update of a symbol's forming candle."""
    opened, o, h, low, c, v, closes, q, n, taker, taker_quote, unused = _row(_FORMING, update)
    first = 1_143_083_231
    kline = {
        "t": opened,
        "T": closes,
        "s": symbol,
        "i": "1m",
        "f": first,
        "L": first + int(n) - 1,
        "o": o,
        "c": c,
        "h": h,
        "l": low,
        "v": v,
        "n": n,
        "x": False,
        "q": q,
        "V": taker,
        "Q": taker_quote,
        "B": unused,
    }
    event = {"e": "kline", "E": int(opened) + 2000, "s": symbol, "k": kline}
    return _encode({"stream": stream_of(symbol), "data": event})


def update_of(message: bytes) -> int | None:
    """Which update a candle sent to a client carries; `None` if it is no candle."""
    found = _VOLUME.search(message)
    return int(found[1]) if found else None


def symbol_of(message: bytes) -> str:
    """The symbol of a candle sent to a client; empty if it has none."""
    found = _SYMBOL.search(message)
    return found[1].decode("ascii") if found else ""


def revision_of(message: bytes) -> int | None:
    """The revision of a candle sent to a client, from a server that has revisions."""
    found = _REVISION.search(message)
    return int(found[1]) if found else None


def fault_of_history(body: bytes, update: int) -> str | None:
    """What is wrong with a server's REST answer after an update, if anything."""
    try:
        candles = json.loads(body)
        times = [candle["time"] for candle in candles]
        volume = int(candles[-1]["volume"])
    except (ValueError, LookupError, TypeError) as error:
        return f"a REST answer that is no list of candles ({error!r})"
    newest = _FORMING // 1000
    if times != list(range(newest - (CANDLES - 1) * 60, newest + 1, 60)):
        return f"a REST answer of {len(times)} candles that are not the newest {CANDLES} minutes"
    if volume != update:
        return f"a REST answer at update {volume} after update {update}"
    return None


def _row(open_time: int, update: int) -> list[str | int]:
    is_forming = open_time == _FORMING
    trades = 1000 + update if is_forming else 113
    volume = update if is_forming else 12
    cents = update % 100 if is_forming else open_time // MINUTE % 100
    return [
        open_time,
        "63906.66000000",
        "63913.01000000",
        "63895.79000000",
        f"63899.{cents:02}000000",
        f"{volume}.76847000",
        open_time + MINUTE - 1,
        f"{volume * 63906}.50054060",
        trades,
        f"{volume}.58081000",
        f"{volume * 63906}.03653550",
        "0",
    ]


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
