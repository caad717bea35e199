"""The bytes of Binance's candle event. Pure.

Source: ``web-socket-streams.md`` of github.com/binance/binance-spot-api-docs, "Kline/Candlestick Streams"; the order of
the fields is that of recorded frames (``../shared/data/frames``). Prices and volumes are Binance's own decimals, digit
for digit. Two fields are not known here: ``f`` and ``L``, the ids of the first and the last trade, are -1, which is
what Binance itself says where there is no trade.
"""

from __future__ import annotations

from functools import lru_cache

from candlesync.core.candle import Candle, Series
from candlesync.doors.binance.requests import stream_of
from candlesync.doors.binance.rows import times_of


def encode(series: Series, candle: Candle, event_time: int, *, in_microseconds: bool = False) -> bytes:
    """A candle as the event of a raw stream; ``event_time`` is in milliseconds."""
    symbol, interval, closed = series.symbol, series.interval, "true" if candle.closed else "false"
    opens, closes = times_of(candle, interval, in_microseconds=in_microseconds)
    said = f"{event_time}000" if in_microseconds else str(event_time)
    return (
        f'{{"e":"kline","E":{said},"s":"{symbol}","k":{{"t":{opens},"T":{closes}'
        f',"s":"{symbol}","i":"{interval}","f":-1,"L":-1,"o":"{candle.open}","c":"{candle.close}"'
        f',"h":"{candle.high}","l":"{candle.low}","v":"{candle.volume}","n":{candle.trades},"x":{closed}'
        f',"q":"{candle.quote_volume}","V":"{candle.taker_base_volume}","Q":"{candle.taker_quote_volume}"'
        f',"B":"{candle.unused}"}}}}'
    ).encode("ascii")


def wrap(series: Series, event: bytes) -> bytes:
    """The event of a raw stream as that of a combined one."""
    return b"%b%b}" % (_opening(series), event)


def event_time(candle: Candle, clock: int) -> int:
    """``E`` in milliseconds, for a clock that says ``clock``.

    What Binance said is not kept, and other nodes' feeds are not seen. Of a closed candle it is the millisecond after
    its end, which is a little before what Binance says (by 2 to 427 ms in the recorded frames), and the same on
    every node. Of a forming one it is this machine's time, but never before the candle opened or after it ends: so
    with a wrong clock, or an exchange whose minutes last a quarter of a second, it still fits the candle, and still
    does not go back from one event to the next. Nothing is decided by it (invariant 7).
    """
    if candle.closed:
        return candle.close_time + 1
    return min(max(clock, candle.open_time), candle.close_time)


@lru_cache(4096)  # as many series as a server follows, and more
def _opening(series: Series) -> bytes:
    return f'{{"stream":"{stream_of(series)}","data":'.encode("ascii")
