"""What the document says of Binance's paths, made from the table that they are served from."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from candlesync.binance.public import Answered, Kind, PublicApi, PublicPath
from candlesync.doors.binance.parameters import USUAL
from candlesync.web.history import STATE
from candlesync.web.openapi import RETRY_AFTER, Header, Operation, Parameter, Reply, Schema

_LARGEST = 2**63 - 1
_DESCRIPTIONS = {
    "symbol": "In upper case.",
    "symbols": 'A JSON array without spaces, as `["BTCUSDT","ETHUSDT"]`.',
    "pair": "As a perpetual contract is called.",
    "interval": "How long a candle lasts; `1m` is a minute, `1M` a month.",
    "startTime": "UNIX milliseconds, inclusive.",
    "endTime": "UNIX milliseconds, inclusive.",
    "timeZone": "Hours and perhaps minutes east of UTC, from `-12:00` to `14:00`.",
    "fromId": "The id of the first.",
}
_EXAMPLES = {
    "symbol": "BTCUSDT",
    "pair": "BTCUSDT",
    "interval": "1m",
    "contractType": "PERPETUAL",
    "period": "5m",
    "fromId": 0,
    "limit": 5,
    "symbols": '["BTCUSDT","ETHUSDT"]',
    "timeZone": "0",
    "windowSize": "1d",
    "type": "MINI",
    "symbolStatus": "TRADING",
    "permissions": "SPOT",
    "showPermissionSets": "false",
}
_ASCII = "[A-Z0-9_.-]{1,50}"
"""Of a symbol; there are some with letters beyond ASCII, which are taken, too."""
_WORD = "[a-zA-Z_0-9]{1,36}"
_PATTERNS = {
    Kind.SYMBOL: f"^{_ASCII}$",
    Kind.SYMBOLS: rf'^\[("{_ASCII}"(,"{_ASCII}")*)?\]$',
    Kind.WORD: f"^{_WORD}$",
    Kind.WORDS: rf'^({_WORD}|\["{_WORD}"(,"{_WORD}")*\])$',
    Kind.TIME_ZONE: r"^[+-]?[0-9]{1,2}(:[0-9]{2})?$",
}

_Decimal = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]


class KlineRow(msgspec.Struct, frozen=True, array_like=True):
    """A candle: open time, open, high, low, close, volume, close time, quote volume, trades, volume and quote volume
    that takers bought, and a field without meaning.
    """

    open_time: int
    open: _Decimal
    high: _Decimal
    low: _Decimal
    close: _Decimal
    volume: _Decimal
    close_time: int
    quote_volume: _Decimal
    trades: int
    taker_base_volume: _Decimal
    taker_quote_volume: _Decimal
    unused: _Decimal


class BinanceError(msgspec.Struct, frozen=True):
    """How Binance tells errors."""

    code: int
    msg: str


_USED = Header(
    "X-MBX-USED-WEIGHT-1M",
    "What this server has used of Binance's request weight in this minute, for all of its clients.",
    {"type": "string", "pattern": "^[0-9]+$"},
)
_BODIES: dict[Answered, tuple[str, Any]] = {
    Answered.HERE: ("An empty object", dict[str, Any]),
    Answered.CANDLES: ("The rows, ascending; the last one may be of a candle that is forming", list[KlineRow]),
    Answered.LISTING: ("Binance's answer, of the last minute", dict[str, Any]),
    Answered.PASSED_ON: ("Binance's answer", Any),
}
_FROM = {
    Answered.HERE: "Answered by this server.",
    Answered.CANDLES: (
        "From the verified store, and what is older from Binance, in pages that all clients share. With `startTime` "
        "the oldest from it on, otherwise the newest. As with Binance, an outage is no row."
    ),
    Answered.LISTING: "Binance's own answer, kept for a minute, and for an hour while Binance cannot be asked.",
    Answered.PASSED_ON: "Passed on to Binance while at most half of the request weight is used.",
}
_REFUSALS = (
    Reply(
        400,
        "In Binance's words: -1101 a repeated parameter, -1102 a mandatory one that is not there, -1104 an unknown one,"
        " -1105 an empty one, -1100 odd characters, -1108 too large, -1120 no such interval, -1121 no such symbol, "
        "-1128 parameters that exclude each other, -1130 no such value, -1151 a symbol twice",
        (BinanceError,),
    ),
    Reply(406, "-1155: there is JSON only", (BinanceError,)),
)
_LATER = (
    Reply(404, "-1020: Binance has nothing at this path now", (BinanceError,)),
    Reply(
        429,
        "-1003: the request weight is needed, or used up; or Binance asks to wait",
        (BinanceError,),
        headers=(RETRY_AFTER,),
    ),
    Reply(503, "-1001: Binance cannot be asked", (BinanceError,), headers=(RETRY_AFTER,)),
)


def operation_of(path: PublicPath, api: PublicApi) -> Operation:
    """What is said of a path."""
    says, body = _BODIES[path.answered]
    headers = (_USED, msgspec.structs.replace(STATE, required=False)) if path.answered is Answered.CANDLES else (_USED,)
    return Operation(
        "Binance's API",
        path.summary,
        (
            Reply(200, says, (body,), headers=headers),
            *_REFUSALS,
            *(() if path.answered is Answered.HERE else _LATER),
        ),
        description=f"{_FROM[path.answered]} Binance's weight of it: {path.weight.words}.",
        parameters=tuple(_parameter(name, kind, path, api) for name, kind in path.parameters.items()),
        error_body=BinanceError,
    )


def _parameter(name: str, kind: Kind, path: PublicPath, api: PublicApi) -> Parameter:
    return Parameter(
        name,
        "query",
        _describe(name, path, api),
        _schema(name, kind, path, api),
        _EXAMPLES.get(name),
        required=name in path.mandatory,
    )


def _describe(name: str, path: PublicPath, api: PublicApi) -> str:
    if name == "limit" and path.answered is Answered.CANDLES:
        more = f"; more is as {api.venue.page_limit}" if api.is_limit_capped else ""
        return f"How many at most{more}."
    return _DESCRIPTIONS.get(name, "How many at most." if name == "limit" else "See Binance's documentation.")


def _schema(name: str, kind: Kind, path: PublicPath, api: PublicApi) -> Schema:
    is_candles = path.answered is Answered.CANDLES
    if name == "limit" and is_candles:
        most = _LARGEST if api.is_limit_capped else api.venue.page_limit
        return {"type": "integer", "minimum": 1, "maximum": most, "default": USUAL}
    if name == "interval" and is_candles:
        return {"type": "string", "enum": [str(interval) for interval in api.venue.intervals]}
    if kind is Kind.NUMBER:
        return {"type": "integer", "minimum": 0, "maximum": _LARGEST}
    return {"type": "string", "pattern": _PATTERNS[kind]}
