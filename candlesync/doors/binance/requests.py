"""What clients ask of Binance's market streams, read and checked, and the answers. Pure.

Sources: ``web-socket-streams.md`` of github.com/binance/binance-spot-api-docs, "Live Subscribing/Unsubscribing to
streams" and "Error Messages". The page shows an error alone; recorded answers wrap it:
``{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":1}``. Known from recorded answers only are that one,
which is for a name that no stream can have, and code 4, "Too many subscriptions".

Binance takes any well-formed name, also one of a stream that it does not have, and then never sends anything. A stream
that is not served here is refused instead: a stream that is silent for ever is worse than an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.doors.binance.errors import BinanceRefusal, bad_request, invalid_interval, invalid_symbol
from candlesync.errors import CandlesyncError

MOST_STREAMS = 1024
"""Of one connection ("WebSocket Limits")."""

INVALID_REQUEST = 2
TOO_MANY_STREAMS = 4

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_STREAM = re.compile(r"([^@\s/]{1,50})@kline_([^@\s/]{1,20})(@[+-][0-9]{2}:[0-9]{2})?", re.ASCII)
_SYMBOL = re.compile(r"[a-z0-9._-]+", re.ASCII)
_NAME = re.compile(r"!?[^\s/]{1,100}")
"""Whatever may be some stream's name."""
_CONNECTION = re.compile(r"[0-9]{1,10}", re.ASCII)
"""Numbers with which ccxt tells its connections apart, where others put a stream's name: ``/ws/0``, ``/ws/1``."""
_TEXT_ID = re.compile(r"[0-9A-Za-z-]{0,36}", re.ASCII)
"""Documented are letters and digits; a UUID, which many clients send and Binance takes, has dashes too."""
_METHOD = re.compile(r'"method"\s*:\s*"(?:[^"\\]|\\.)*"')
_BYTE = re.compile(r"\(byte (\d+)\)")

RequestId = int | str | None


class MessageRefusal(CandlesyncError):
    """A client's message that is not acted on."""

    def __init__(self, refusal: BinanceRefusal, request_id: RequestId = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.id = request_id
        """The message's; `None` when it has none, or none that can be."""


class Subscribe(msgspec.Struct, frozen=True):
    """Follow these series from now on."""

    id: RequestId
    series: tuple[Series, ...]
    """Each once."""


class Unsubscribe(msgspec.Struct, frozen=True):
    """Follow these series no more. Names of streams that are not served are left out: nobody follows those."""

    id: RequestId
    series: tuple[Series, ...]


class ListSubscriptions(msgspec.Struct, frozen=True):
    """Say which series are followed."""

    id: RequestId


class SetCombined(msgspec.Struct, frozen=True):
    """Wrap events with the names of their streams, or do not."""

    id: RequestId
    combined: bool


class GetCombined(msgspec.Struct, frozen=True):
    """Say whether events are wrapped."""

    id: RequestId


Request = Subscribe | Unsubscribe | ListSubscriptions | SetCombined | GetCombined


def stream_of(series: Series) -> str:
    """The name of the stream of a series."""
    return f"{series.symbol.lower()}@kline_{series.interval}"


def read_stream(name: str) -> Series:
    """The series of a stream; raises `BinanceRefusal` for one that is not served."""
    match = _STREAM.fullmatch(name)
    if match is None:
        raise _invalid_stream(name, "served are <symbol>@kline_<interval>")
    symbol, interval, zone = match.groups()
    if zone:
        raise _invalid_stream(name, "candles of other time zones than UTC are not served")
    if symbol != symbol.lower():
        # Binance takes it too, and sends nothing.
        raise _invalid_stream(name, "symbols of streams are in lower case")
    if _SYMBOL.fullmatch(symbol) is None:
        raise invalid_symbol()
    try:
        return Series(symbol.upper(), Interval(interval))
    except ValueError:
        raise invalid_interval() from None


def read_target(names: Iterable[str]) -> tuple[Series, ...]:
    """The series that a URL asks for, each once, given what stands between its slashes; raises `BinanceRefusal`."""
    series = _each_once(read_stream(name) for name in names if name and _CONNECTION.fullmatch(name) is None)
    if len(series) > MOST_STREAMS:
        raise too_many_streams()
    return series


def too_many_streams() -> BinanceRefusal:
    """A connection has as many streams as one may have."""
    return bad_request(TOO_MANY_STREAMS, "Too many subscriptions")


def read_request(message: str) -> Request:
    """What a client's message asks for; raises `MessageRefusal`."""
    try:
        value = msgspec.json.decode(message)
    except msgspec.DecodeError as error:
        found = _BYTE.search(str(error))
        # Where a text ends too early, there is no byte to name: the error is at its end.
        at = _where(message.encode("utf-8")[: int(found[1]) + 1].decode("utf-8", "ignore") if found else message)
        raise MessageRefusal(bad_request(3, f"Invalid JSON: expected value {at}")) from None
    except (RecursionError, UnicodeError):
        raise MessageRefusal(bad_request(3, f"Invalid JSON: expected value {_where(message)}")) from None
    if not isinstance(value, dict) or "method" not in value:
        request_id = value.get("id") if isinstance(value, dict) else None
        refusal = _invalid(f"missing field `method` {_where(message)}")
        raise MessageRefusal(refusal, request_id if _is_id(request_id) else None)
    if "id" not in value or not _is_id(value["id"]):
        raise MessageRefusal(_invalid("request ID must be an unsigned integer"))
    request_id = value["id"]
    try:
        return _read(request_id, value["method"], value.get("params"), message)
    except BinanceRefusal as refusal:
        raise MessageRefusal(refusal, request_id) from None


def result(request_id: RequestId, value: object = None) -> bytes:
    """The answer to a request that was granted."""
    return _encode({"result": value, "id": request_id})


def error(refusal: BinanceRefusal, request_id: RequestId) -> bytes:
    """The answer to one that was refused."""
    return _encode({"error": {"code": refusal.code, "msg": refusal.message}, "id": request_id})


def _read(request_id: RequestId, method: object, parameters: object, message: str) -> Request:
    match method:
        case "SUBSCRIBE":
            return Subscribe(request_id, _each_once(map(read_stream, _names(parameters, message))))
        case "UNSUBSCRIBE":
            return Unsubscribe(request_id, _each_once(_served(_names(parameters, message))))
        case "LIST_SUBSCRIPTIONS":
            if parameters:
                raise _invalid("too many parameters")
            return ListSubscriptions(request_id)
        case "SET_PROPERTY":
            values = _property(parameters, most=2)
            if not values or not isinstance(values[0], bool):
                raise bad_request(1, "Invalid value type: expected Boolean")
            return SetCombined(request_id, values[0])
        case "GET_PROPERTY":
            _property(parameters, most=1)
            return GetCombined(request_id)
    known = ", ".join(f"`{name}`" for name in _METHODS)
    found = _METHOD.search(message)
    at = _where(message[: found.end()] if found else message)
    raise _invalid(f"unknown variant `{_short(str(method))}`, expected one of {known} {at}")


def _names(parameters: object, message: str) -> list[str]:
    if parameters is None:
        raise _invalid(f"missing field `params` {_where(message)}")
    if not isinstance(parameters, list):
        raise _invalid(f"params must be an array of stream names {_where(message)}")
    for name in parameters:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise _invalid("invalid stream")
    return parameters


def _property(parameters: object, *, most: int) -> list[object]:
    """What is given after the name of the property, which is the only one there is."""
    if not isinstance(parameters, list) or not parameters or not isinstance(parameters[0], str):
        raise _invalid("property name must be a string")
    if parameters[0] != "combined":
        raise bad_request(0, "Unknown property")
    if len(parameters) > most:
        raise _invalid("too many parameters")
    return parameters[1:]


def _served(names: Iterable[str]) -> Iterable[Series]:
    for name in names:
        try:
            yield read_stream(name)
        except BinanceRefusal:
            continue  # it cannot have been subscribed to, and Binance grants that too


def _each_once(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(dict.fromkeys(series))


def _is_id(value: object) -> bool:
    """Whether it is a 64-bit signed integer, a short text, or null."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or (isinstance(value, str) and _TEXT_ID.fullmatch(value) is not None)


def _where(text: str) -> str:
    """Where a text ends, in the words of Binance's parser."""
    last = text.rpartition("\n")[2]
    return f"at line {text.count(chr(10)) + 1} column {len(last)}"


def _invalid(message: str) -> BinanceRefusal:
    return bad_request(INVALID_REQUEST, f"Invalid request: {message}")


def _invalid_stream(name: str, reason: str) -> BinanceRefusal:
    return _invalid(f"invalid stream {_short(name)}: {reason}")


def _short(text: str) -> str:
    """A client's own text as it may stand in an answer: short, and printable."""
    return ascii(text if len(text) <= 40 else text[:40] + "…")[1:-1]


_encode = msgspec.json.Encoder().encode
