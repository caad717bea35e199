"""The settings of the simulator, each with its default and where that comes from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from candlesync.core.interval import DAY, Interval
from candlesync.simulator.faults import Fault
from candlesync.simulator.symbols import DEFAULT_SYMBOLS, SymbolSpec
from candlesync.simulator.venue import VENUES, Venue, VenueName

DEFAULT_START = 1_717_372_800_000
"""2024-06-03 00:00 UTC, a Monday: the whole day with which a market of walks alone begins."""


class KlineFile(msgspec.Struct, frozen=True):
    """A file with candles of one symbol at one interval; see `candlesync.simulator.files`."""

    symbol: str
    interval: Interval
    path: Path


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a simulator does. "Seconds" are Trio's; market time is in milliseconds."""

    venue: VenueName = "spot"
    """Which of Binance's markets this is."""
    seed: int = 1
    minute_seconds: float = 1.0
    """How many seconds a minute of the market lasts; 60 is real time."""
    start: int | None = None
    """The market's time when it begins to run. Left out: `DEFAULT_START`, or the thousandth candle (but not beyond the
    middle) of the first kline file."""
    symbols: tuple[str | SymbolSpec, ...] = DEFAULT_SYMBOLS
    """A name stands for `symbols.symbol_spec` of it. Symbols of kline files need not be named."""
    klines: tuple[KlineFile, ...] = ()
    """Recorded candles; several files of one symbol are joined."""

    update_ms: int = 2_000
    """Time between two updates of a forming candle, in market time (Binance: 2,000 ms)."""
    update_ms_1s: int = 1_000
    """The same for the interval ``1s`` (Binance: 1,000 ms)."""
    shortest_update: float = 0.05
    """No two updates of one stream are closer than this many seconds, however short a minute is. Close frames are not
    held back."""

    weight_limit: int | None = None
    """Request weight a minute. Left out: the venue's (spot: 6,000; USD-M: 2,400)."""
    weight_patience: int = 10
    """Requests that are answered 429 before the client is banned (418); Binance does not say how many."""
    ban_seconds: int = 120
    """The first ban; each further one is twice as long (Binance: 2 minutes to 3 days)."""

    ping_seconds: float = 20.0
    """Time between two pings of the server (Binance: 20 s)."""
    pong_seconds: float = 60.0
    """A connection that has not answered a ping for this long is cut (Binance: a minute)."""
    connection_seconds: float = DAY / 1000
    """A connection that has lasted this long is closed (Binance: 24 hours)."""
    message_rate: int | None = None
    """A connection that sends more messages than this in a second is closed. Left out: the venue's (spot: 5; USD-M:
    10)."""
    most_streams: int = 1_024
    """Streams of one connection (Binance: 1,024)."""
    most_unsent: int = 10_000
    """Frames kept for a client that does not read; it is cut when there are more."""

    faults: tuple[Fault, ...] = ()
    """Scheduled from the start; see `candlesync.simulator.faults`."""

    def __post_init__(self) -> None:
        for name in ("minute_seconds", "update_ms", "update_ms_1s", "weight_limit", "message_rate", "most_streams"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be more than 0")

    @property
    def of_venue(self) -> Venue:
        """What the venue has and allows."""
        return VENUES[self.venue]
