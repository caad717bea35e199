"""What Binance says, read into our own words: stream frames, kline rows, errors, the time.

Pure and synchronous. A text that is not what Binance documents raises one error that says what was wrong, at bounded
length; it never becomes a candle, and a bad row never becomes a hole.

Sources: developers.binance.com, Spot, "WebSocket Streams" (frames, subscriptions, serverShutdown), "Market Data
endpoints" (klines), "General endpoints" (time), "Error codes"; and the recordings that the tests read. The list of
symbols is read in `candlesync.binance.listing`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

import msgspec

from candlesync.binance.text import EXCERPT, UNREADABLE, excerpt, is_decimal, is_symbol
from candlesync.core.candle import DECIMAL, LAST_TIME, Candle, Series
from candlesync.core.interval import Interval
from candlesync.errors import UnreadableAnswer, UnreadableFrame

_NAME = 64
"""Characters of an event's name or a request's id; the longest that Binance documents has 36."""

_nine_decimals = re.compile(rf"{DECIMAL} " * 9).fullmatch
"""Nine decimals, a space after each, in one match. A value with a space in it would make a tenth: no match."""

_Time = Annotated[int, msgspec.Meta(ge=0, lt=LAST_TIME)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Kline(msgspec.Struct, frozen=True):
    """A candle of the stream, as it stands now."""

    series: Series
    candle: Candle
    event_time: int = 0
    """When Binance sent it, by its own clock (UNIX milliseconds); 0 when it does not say."""


class Acknowledgement(msgspec.Struct, frozen=True):
    """Binance's answer to something that we asked on a stream connection."""

    id: int | str | None
    """As we sent it; `None` when Binance could not tell which request it answers."""
    error: str | None
    """`None` when the request was granted."""


class ServerShutdown(msgspec.Struct, frozen=True):
    """Binance is about to end this connection: connect anew as soon as possible."""


class Ignored(msgspec.Struct, frozen=True):
    """A valid event that candlesync does not follow."""

    event: str


class BinanceError(msgspec.Struct, frozen=True):
    """The body of a refused REST request."""

    code: int
    msg: str
    """At most 120 characters of it."""


class _Values(msgspec.Struct, gc=False):
    """The twelve fields of a kline, in the order of Binance's rows, under the names that its stream events have."""

    open_time: _Time = msgspec.field(name="t")
    open: str = msgspec.field(name="o")
    high: str = msgspec.field(name="h")
    low: str = msgspec.field(name="l")
    close: str = msgspec.field(name="c")
    volume: str = msgspec.field(name="v")
    close_time: _Time = msgspec.field(name="T")
    quote_volume: str = msgspec.field(name="q")
    trades: _Count = msgspec.field(name="n")
    taker_base_volume: str = msgspec.field(name="V")
    taker_quote_volume: str = msgspec.field(name="Q")
    unused: str = msgspec.field(name="B")


class _Row(_Values, array_like=True, forbid_unknown_fields=True, gc=False):
    """A row of a klines answer: the fields by their order alone."""


class _Bar(_Values, gc=False):
    """The ``k`` of a kline event; its ``f`` and ``L``, the first and last trade ids, are not kept."""

    symbol: str = msgspec.field(name="s")
    interval: Interval = msgspec.field(name="i")
    closed: bool = msgspec.field(name="x")


class _Event(msgspec.Struct, gc=False):
    e: str
    s: str
    k: _Bar
    event_time: _Time = msgspec.field(default=0, name="E")


class _Frame(msgspec.Struct, gc=False):
    """A kline event, raw or wrapped, in one pass: which of the two shows in what is there."""

    e: str = ""
    s: str = ""
    k: _Bar | None = None
    event_time: _Time = msgspec.field(default=0, name="E")
    stream: str | None = None
    data: _Event | None = None


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: _Time


_frame = msgspec.json.Decoder(_Frame)
_anything = msgspec.json.Decoder()
_rows = msgspec.json.Decoder(list[_Row])
_error = msgspec.json.Decoder(BinanceError)
_server_time = msgspec.json.Decoder(_ServerTime)


def parse_frame(text: str | bytes) -> Kline | Acknowledgement | ServerShutdown | Ignored:
    """Read one frame of a raw or combined stream.

    Raises `UnreadableFrame` for anything that Binance does not document. Whether an open time lies on its interval's
    grid is not asked here: Binance has had candles that do not (2018), and the sync decides about them.
    """
    try:
        frame = _frame.decode(text)
    except UNREADABLE as error:
        return _other_frame(text, str(error))
    if frame.data is not None and frame.stream is not None:
        event, symbol, bar, sent_at = frame.data.e, frame.data.s, frame.data.k, frame.data.event_time
    elif frame.k is not None and frame.stream is None:
        event, symbol, bar, sent_at = frame.e, frame.s, frame.k, frame.event_time
    else:
        return _other_frame(text, "no event in it")
    if event != "kline":
        return _other_frame(text, f"a kline's fields in an event called {excerpt(event)}")
    fault = _fault(bar)
    if fault is not None:
        raise UnreadableFrame(f"kline frame: {fault}")
    return Kline(_series(frame.stream, symbol, bar.symbol, bar.interval), _candle(bar, closed=bar.closed), sent_at)


def parse_rows(body: bytes) -> tuple[Candle, ...]:
    """Read a klines answer: its candles, ascending, all closed but the newest.

    Raises `UnreadableAnswer` when any row is not what Binance documents: the whole answer is void.
    """
    try:
        rows = _rows.decode(body)
    except UNREADABLE as error:
        raise UnreadableAnswer(f"klines answer: {excerpt(error)}; documented: an array of rows of 12 fields") from error
    for number, row in enumerate(rows):
        fault = _fault(row)
        if fault is not None:
            raise UnreadableAnswer(f"klines answer: row {number} of {len(rows)}: {fault}")
    for one, other in pairwise(rows):
        if one.open_time >= other.open_time:
            raise UnreadableAnswer(
                f"klines answer: open time {other.open_time} after {one.open_time}; documented: ascending"
            )
    # Invariant 5: a row is final only if a later row stands in the same answer. So each row but the newest is closed,
    # and the newest is forming, whatever its close time and whatever any clock says.
    newest = len(rows) - 1
    return tuple(_candle(row, closed=number < newest) for number, row in enumerate(rows))


def parse_error(body: bytes) -> BinanceError | None:
    """Read the body of a refused request; `None` when it is not Binance's own (a proxy's page, nothing at all)."""
    try:
        error = _error.decode(body)
    except UNREADABLE:
        return None
    return BinanceError(error.code, error.msg[:EXCERPT])


def parse_server_time(body: bytes) -> int:
    """Read a ``time`` answer: UNIX milliseconds. Raises `UnreadableAnswer`."""
    try:
        return _server_time.decode(body).server_time
    except UNREADABLE as error:
        raise UnreadableAnswer(f"time answer: {excerpt(error)}; documented: serverTime") from error


def _other_frame(text: str | bytes, fault: str) -> Acknowledgement | ServerShutdown | Ignored:
    """Read a frame that is not a good kline; ``fault`` says why it is not, in case it is nothing else either."""
    try:
        shape = _anything.decode(text)
    except UNREADABLE as error:
        raise UnreadableFrame(f"frame: {excerpt(error)}; documented: a JSON object") from error
    match shape:
        case {"stream": str(), "data": event} | ({"e": _} as event):
            return _other_event(event, fault)
        case {"error": {"code": int(code), "msg": str(msg)}} | {"code": int(code), "msg": str(msg)}:
            return Acknowledgement(_request_id(shape), f"{code}: {msg[:EXCERPT]}")
        case {"result": _, "id": _}:
            return Acknowledgement(_request_id(shape), None)
    raise _undocumented(fault)


def _other_event(event: Any, fault: str) -> ServerShutdown | Ignored:
    match event:
        case {"e": "serverShutdown"}:
            return ServerShutdown()
        case {"e": str(name)} if name != "kline" and 0 < len(name) <= _NAME:
            return Ignored(name)
    raise _undocumented(fault)


def _request_id(answer: dict[str, Any]) -> int | str | None:
    match answer.get("id"):
        case None:
            return None
        case bool():
            raise _undocumented("an id that is a boolean")
        case int(number):
            return number
        case str(text) if len(text) <= _NAME:
            return text
    raise _undocumented("an id that is no short text, number or null")


def _undocumented(fault: str) -> UnreadableFrame:
    known = "a kline, another event, or an answer with its id"
    return UnreadableFrame(f"frame: {excerpt(fault)}; documented: {known}")


@lru_cache(maxsize=4096)  # the same few names come again and again; only good ones are kept
def _series(stream: str | None, symbol: str, inside: str, interval: Interval) -> Series:
    """The series of a kline by all the names in its frame; raises `UnreadableFrame` when they do not fit."""
    if symbol != inside or not is_symbol(symbol):
        names = f"{excerpt(symbol)} outside and {excerpt(inside)} inside"
        raise UnreadableFrame(f"kline frame: symbols {names}; documented: one name, twice")
    # Binance documents stream names as the symbol in lower case, with the interval as it is.
    if stream is not None and stream != f"{symbol.lower()}@kline_{interval}":
        raise UnreadableFrame(f"kline frame: stream {excerpt(stream)} around a kline of {symbol} {interval}")
    return Series(symbol, interval)


def _fault(values: _Values) -> str | None:
    """What is wrong with the values of a kline, if anything."""
    decimals = (
        f"{values.open} {values.high} {values.low} {values.close} {values.volume} {values.quote_volume} "
        f"{values.taker_base_volume} {values.taker_quote_volume} {values.unused} "
    )
    if not _nine_decimals(decimals):
        return f"{excerpt(_not_decimal(values))} where a decimal like 37012.31000000 is documented"
    if _is_under(values.high, values.low):
        return f"high {values.high} under low {values.low}"
    if values.close_time < values.open_time:
        return f"close time {values.close_time} before open time {values.open_time}"
    return None


def _is_under(one: str, other: str) -> bool:
    """Whether a decimal is smaller than another."""
    # With the point at the same place, decimals without leading zeros are ordered as their texts are.
    if len(one) == len(other) and one.find(".") == other.find("."):
        return one < other
    return Decimal(one) < Decimal(other)


def _not_decimal(values: _Values) -> str:
    texts = (value for value in msgspec.structs.astuple(values)[:12] if isinstance(value, str))
    return next(text for text in texts if not is_decimal(text))


def _candle(values: _Values, *, closed: bool) -> Candle:
    return Candle(
        open_time=values.open_time,
        open=values.open,
        high=values.high,
        low=values.low,
        close=values.close,
        volume=values.volume,
        close_time=values.close_time,
        quote_volume=values.quote_volume,
        trades=values.trades,
        taker_base_volume=values.taker_base_volume,
        taker_quote_volume=values.taker_quote_volume,
        unused=values.unused,
        closed=closed,
    )
