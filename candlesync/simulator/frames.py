"""What the streams send: kline events as Binance documents them (web-socket-streams.md), and frames that are not."""

from __future__ import annotations

from functools import cached_property
from itertools import count
from typing import Any, assert_never, get_args

import msgspec

from candlesync.core.interval import Interval
from candlesync.simulator.bars import Kline
from candlesync.simulator.faults import FrameShape

_FRAME_SHAPES: tuple[FrameShape, ...] = get_args(FrameShape)


class _KlineFields(
    msgspec.Struct,
    rename={
        "open_time": "t",
        "close_time": "T",
        "symbol": "s",
        "interval": "i",
        "first_trade": "f",
        "last_trade": "L",
        "open": "o",
        "close": "c",
        "high": "h",
        "low": "l",
        "volume": "v",
        "trades": "n",
        "closed": "x",
        "quote_volume": "q",
        "taker_volume": "V",
        "taker_quote_volume": "Q",
        "unused": "B",
    },
):
    open_time: int
    close_time: int
    symbol: str
    interval: str
    first_trade: int
    last_trade: int
    open: str
    close: str
    high: str
    low: str
    volume: str
    trades: int
    closed: bool
    quote_volume: str
    taker_volume: str
    taker_quote_volume: str
    unused: str


class _KlineEvent(msgspec.Struct, rename={"event": "e", "event_time": "E", "symbol": "s", "kline": "k"}):
    event: str
    event_time: int
    symbol: str
    kline: _KlineFields


class Frame:
    """One event of one stream, encoded once for all clients that get it."""

    def __init__(
        self,
        stream: str,
        raw: str,
        *,
        symbol: str = "",
        interval: Interval | None = None,
        open_time: int = 0,
        closed: bool = False,
    ) -> None:
        self.stream = stream
        self.raw = raw
        """As sent on ``/ws``."""
        self.symbol = symbol
        self.interval = interval
        self.open_time = open_time
        self.closed = closed

    @cached_property
    def combined(self) -> str:
        """As sent on ``/stream``."""
        return f'{{"stream":"{self.stream}","data":{self.raw}}}'


def stream_name(symbol: str, interval: Interval) -> str:
    """The name of a kline stream: ``btcusdt@kline_1m``."""
    return f"{symbol.lower()}@kline_{interval}"


def kline_frame(symbol: str, interval: Interval, kline: Kline, event_time: int) -> Frame:
    """The event that shows a candle to the followers of its stream."""
    row = kline.row
    fields = _KlineFields(
        row.open_time,
        row.close_time,
        symbol,
        str(interval),
        kline.first_trade,
        kline.last_trade,
        row.open,
        row.close,
        row.high,
        row.low,
        row.volume,
        row.trades,
        kline.closed,
        row.quote_volume,
        row.taker_volume,
        row.taker_quote_volume,
        row.unused,
    )
    event = msgspec.json.encode(_KlineEvent("kline", event_time, symbol, fields)).decode()
    name = stream_name(symbol, interval)
    return Frame(name, event, symbol=symbol, interval=interval, open_time=row.open_time, closed=kline.closed)


def shutdown_frame(event_time: int) -> Frame:
    """The event that announces the end of the server; it belongs to no stream that one subscribes to."""
    return Frame("!serverShutdown", f'{{"e":"serverShutdown","E":{event_time}}}')


class GarbagePress:
    """Makes frames that look like a good one and are not; without a shape, one after the other."""

    def __init__(self) -> None:
        self._turn = count()

    def spoil(self, frame: Frame, shape: FrameShape | None) -> Frame:
        """A frame of ``shape`` in place of a good one."""
        shape = shape or _FRAME_SHAPES[next(self._turn) % len(_FRAME_SHAPES)]
        return Frame(frame.stream, _spoiled(frame.raw, shape), symbol=frame.symbol, interval=frame.interval)


def _spoiled(raw: str, shape: FrameShape) -> str:
    if shape == "not_json":
        return raw[: len(raw) // 2]
    if shape == "not_an_object":
        return "[]"
    event: dict[str, Any] = msgspec.json.decode(raw)
    kline = event["k"]
    match shape:
        case "wrong_types":
            kline.update(t=str(kline["t"]), h=None, n=[kline["n"]], x="maybe")
        case "missing_fields":
            del kline["t"], kline["c"]
        case "wrong_symbol":
            event["s"] = kline["s"] = "WRONGUSDT"
        case _:
            assert_never(shape)
    return msgspec.json.encode(event).decode()
