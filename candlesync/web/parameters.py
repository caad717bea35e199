"""What clients ask for, read and checked: a bad value gets a `Refusal` that says what was wrong and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.position import Position, parse_position
from candlesync.web.openapi import Parameter, Schema
from candlesync.web.refusal import Refusal

LIMIT = 1000
"""Candles of one REST answer or one replay at most (design, section 3)."""
REPLAY = 5
"""Candles that a WebSocket replays when it is not told how many."""

_LONGEST_SYMBOL = 50
_SYMBOL = re.compile(rf"[A-Z0-9._-]{{1,{_LONGEST_SYMBOL}}}", re.ASCII)
"""Binance's own rule for a symbol, from its -1100 error body (``../shared/data/rest/binance_error_bodies.json``)."""
_DIGITS = 11
_SECONDS = re.compile(rf"[0-9]{{1,{_DIGITS}}}", re.ASCII)
"""Any second up to the year 5138; a time in milliseconds has more digits."""
LAST_SECOND = 10**_DIGITS - 1
"""The last of them."""
_COUNT = re.compile(r"[0-9]{1,6}", re.ASCII)


SYMBOL = Parameter(
    "symbol",
    "path",
    "A symbol, in any case; `GET /symbols` lists them.",
    {"type": "string", "pattern": f"^[A-Za-z0-9._-]{{1,{_LONGEST_SYMBOL}}}$"},
    "BTCUSDT",
)
BEFORE = Parameter(
    "before",
    "query",
    "Only candles that open before this time: for scrolling back, as far as Binance goes.",
    {"type": "integer", "minimum": 0, "maximum": LAST_SECOND},
)


def interval_parameter(intervals: Iterable[Interval]) -> Parameter:
    """How long a candle lasts, where there are those intervals."""
    description = "How long a candle lasts; `1m` is a minute, `1M` a month."
    return Parameter(
        "interval", "path", description, {"type": "string", "enum": [str(interval) for interval in intervals]}, "1m"
    )


def counted(name: str, description: str, most: int, default: int) -> Parameter:
    """How many a client wants at most."""
    schema: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter(name, "query", description, schema, 5)


COUNT = counted("limit", "How many candles at most, the newest.", LIMIT, LIMIT)


class Replay(msgspec.Struct, frozen=True):
    """Start with the last ``count`` candles."""

    count: int = REPLAY


class Since(msgspec.Struct, frozen=True):
    """Start with every candle from ``open_time`` (milliseconds) on."""

    open_time: int


class Resume(msgspec.Struct, frozen=True):
    """Start with what changed after ``position``."""

    position: Position


Start = Replay | Since | Resume


def read_series(symbol: str, interval: str) -> Series:
    """The series of a symbol in any case and an interval; refuses `unknown_symbol` and `bad_interval`."""
    return Series(read_symbol(symbol), _read_interval(interval))


def read_limit(values: Iterable[str]) -> int:
    """``limit``: 1 to 1000, or 1000 when it is not given; refuses `bad_limit`."""
    text = only("limit", values, "bad_limit")
    if text is None:
        return LIMIT
    if _COUNT.fullmatch(text) is None or not 1 <= int(text) <= LIMIT:
        raise Refusal("bad_limit", f"limit must be a whole number from 1 to {LIMIT}, not {quote(text)}")
    return int(text)


def read_before(values: Iterable[str]) -> int | None:
    """``before`` in milliseconds, or `None` when it is not given; refuses `bad_parameter`."""
    text = only("before", values)
    return None if text is None else _read_time("before", text)


def read_start(parameters: Mapping[str, Iterable[str]]) -> Start:
    """Where a subscription starts: at most one of ``replay``, ``since`` and ``position``; refuses `bad_parameter`."""
    given = {
        name: text
        for name in ("replay", "since", "position")
        if (text := only(name, parameters.get(name, ()))) is not None
    }
    if len(given) > 1:
        raise Refusal("bad_parameter", f"give only one of {', '.join(given)}: they exclude each other")
    for name, text in given.items():
        match name:
            case "replay":
                if _COUNT.fullmatch(text) is None or int(text) > LIMIT:
                    raise Refusal(
                        "bad_parameter", f"replay must be a whole number from 0 to {LIMIT}, not {quote(text)}"
                    )
                return Replay(int(text))
            case "since":
                return Since(_read_time("since", text))
            case _:
                try:
                    return Resume(parse_position(text))
                except ValueError as error:
                    raise Refusal("bad_parameter", f"position is {error}: {quote(text)}") from error
    return Replay()


def read_symbol(text: str) -> str:
    """A symbol in any case; refuses `unknown_symbol`."""
    # Checked before the case is changed: upper() makes ASCII of some letters that are not.
    symbol = text.upper() if text.isascii() else ""
    if _SYMBOL.fullmatch(symbol) is None:
        raise Refusal("unknown_symbol", f"no symbol is called {quote(text)}; GET /symbols lists them")
    return symbol


def _read_interval(text: str) -> Interval:
    try:
        return Interval(text)
    except ValueError:
        known = ", ".join(map(str, INTERVALS))
        raise Refusal("bad_interval", f"interval must be one of {known}, not {quote(text)}") from None


def _read_time(name: str, text: str) -> int:
    if _SECONDS.fullmatch(text) is None:
        hint = " (that looks like milliseconds)" if text.isdecimal() else ""
        raise Refusal("bad_parameter", f"{name} must be a time in whole UNIX seconds, not {quote(text)}{hint}")
    return int(text) * 1000


def only(name: str, values: Iterable[str], code: str = "bad_parameter") -> str | None:
    """The value of a parameter that may be given once, or `None`."""
    found = list(values)
    if len(found) > 1:
        raise Refusal(code, f"{name} is given {len(found)} times; give it once")
    return found[0] if found else None


def quote(text: str) -> str:
    """A client's own text as it may stand in an answer: short, and printable."""
    return ascii(text if len(text) <= 40 else text[:40] + "…")
