"""What a client of the protocol asks for, read and checked: a bad value gets a `Refusal`."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from candlesync.core.candle import Series
from candlesync.doors.udf.market import Market
from candlesync.doors.udf.resolutions import SHORT
from candlesync.web.openapi import Parameter
from candlesync.web.parameters import LAST_SECOND, counted, only, quote, read_symbol
from candlesync.web.refusal import Refusal

MOST_BARS = 5000
"""Of one answer: five pages of Binance's and some. With more in the range, the newest are given, which the library's
adapter knows how to continue (its ``limitedServerResponse``)."""
MOST_FOUND = 1000
"""Symbols of one answer to a search."""
FOUND = 30
"""The same, when it is not said how many are wanted."""

_TIME = re.compile(rf"-?[0-9]{{1,{len(str(LAST_SECOND))}}}", re.ASCII)
"""Any second up to the year 5138, which in milliseconds has more digits. Negative: the library asks for what was before
1970 when a chart is scrolled far back."""
_DIGITS = 9
_COUNT = re.compile(rf"[0-9]{{1,{_DIGITS}}}", re.ASCII)

_SECOND = {"type": "integer", "minimum": -LAST_SECOND, "maximum": LAST_SECOND}


def ticker_parameter(market: Market) -> Parameter:
    """What a symbol is asked for by."""
    return Parameter(
        "symbol",
        "query",
        f"A symbol, in any case, perhaps with the exchange before it: `{market.exchange}:BTCUSDT`.",
        {"type": "string", "minLength": 1},
        "BTCUSDT",
        required=True,
    )


def bars_parameters(market: Market) -> tuple[Parameter, ...]:
    """What bars are asked for by."""
    short = (name for name, resolution in SHORT.items() if resolution in market.resolutions)
    return (
        ticker_parameter(market),
        Parameter(
            "resolution",
            "query",
            "How long a bar lasts: a number is minutes.",
            {"type": "string", "enum": [*market.resolutions, *short]},
            "1",
            required=True,
        ),
        Parameter(
            "from",
            "query",
            "The time of the first bar; without it, and without `countback`, there are as many as an answer holds.",
            _SECOND,
            0,
        ),
        Parameter("to", "query", "The time before which the bars are.", _SECOND, LAST_SECOND, required=True),
        Parameter(
            "countback",
            "query",
            "How many bars before `to`, whatever `from` is; 0 is as if it were not given.",
            {"type": "integer", "minimum": 0, "maximum": 10**_DIGITS - 1},
        ),
    )


def search_parameters(market: Market) -> tuple[Parameter, ...]:
    """What symbols are searched by."""
    return (
        Parameter("query", "query", "What the name or the assets of a symbol have in them.", {"type": "string"}, "btc"),
        Parameter("exchange", "query", f"Empty, or `{market.exchange}`: there is no other.", {"type": "string"}),
        Parameter("type", "query", "Empty, or `crypto`: there is no other.", {"type": "string"}),
        counted("limit", "How many symbols at most.", MOST_FOUND, FOUND),
    )


Values = Callable[[str], list[str]]
"""Gives the values of a parameter, each as often as it is given."""


class Question(msgspec.Struct, frozen=True):
    """Which bars are asked for."""

    series: Series
    start: int | None
    """The first open time, milliseconds, inclusive; `None`: the range has no beginning."""
    end: int
    """The open time before which they are, milliseconds, exclusive."""
    count: int
    """Of them how many at most, the newest."""


def read_ticker(values: Values, market: Market) -> str:
    """``symbol``: a symbol, perhaps with the exchange before it (``BINANCE:BTCUSDT``); refuses `unknown_symbol`."""
    text = _required("symbol", values)
    exchange, colon, name = text.partition(":")
    return read_symbol(name if colon and exchange.upper() == market.exchange else text)


def read_question(values: Values, market: Market) -> Question:
    """What ``history`` is asked; ``countback`` counts more than ``from``, as the protocol says."""
    symbol = read_ticker(values, market)
    resolution = _required("resolution", values)
    interval = market.interval(resolution)
    if interval is None:
        known = ", ".join(market.resolutions)
        raise Refusal("bad_interval", f"resolution must be one of {known}, not {quote(resolution)}")
    start, end = _read_time("from", values), _read_time("to", values)
    count = _read_count("countback", values)
    if end is None:
        raise Refusal("bad_parameter", "to is missing: the time before which the bars are")
    # The library's adapter asks for the rest of a range with ``countback=0`` when it has counted to the end.
    if count:
        return Question(Series(symbol, interval), None, end, min(count, MOST_BARS))
    return Question(Series(symbol, interval), start, end, MOST_BARS)


def read_limit(values: Values) -> int:
    """``limit`` of a search."""
    count = _read_count("limit", values)
    if count is None:
        return FOUND
    if not 1 <= count <= MOST_FOUND:
        raise Refusal("bad_limit", f"limit must be a whole number from 1 to {MOST_FOUND}, not {count}")
    return count


def _required(name: str, values: Values) -> str:
    text = only(name, values(name))
    if not text:
        raise Refusal("bad_parameter", f"{name} is missing")
    return text


def _read_time(name: str, values: Values) -> int | None:
    text = only(name, values(name))
    if text is None:
        return None
    if _TIME.fullmatch(text) is None:
        raise Refusal("bad_parameter", f"{name} must be a time in whole UNIX seconds, not {quote(text)}")
    return int(text) * 1000


def _read_count(name: str, values: Values) -> int | None:
    text = only(name, values(name))
    if text is None:
        return None
    if _COUNT.fullmatch(text) is None:
        raise Refusal("bad_parameter", f"{name} must be a whole number, not {quote(text)}")
    return int(text)
