"""What a check finds. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

VALUES = ("open", "high", "low", "close", "volume")
"""The fields of a candle that are Binance's own decimals."""


class CannotCheck(Exception):
    """Nothing can be said of a server, or of one of its series; the message says why."""


class Difference(msgspec.Struct, frozen=True):
    """Something that is not as it must be."""

    time: int | None
    """The candle's open time, in UNIX milliseconds; `None` when it is of the series as a whole."""
    field: str
    served: str
    """What the server shows; a dash for nothing."""
    due: str
    """What Binance shows, or what the contract asks for."""
    by_contract: bool = False
    """Whether it is the contract that asks for it."""

    def line(self, series: str) -> str:
        """In words, on one line."""
        asks = "must be" if self.by_contract else "Binance"
        return f"{series}  {moment(self.time)}  {self.field}  served {self.served}  {asks} {self.due}"


class Shown(msgspec.Struct, frozen=True):
    """A candle as the server shows it; decimals as they stand in the JSON, digit for digit."""

    time: int
    """Open time, in UNIX milliseconds."""
    values: tuple[str, ...]
    """In the order of `VALUES`."""
    closed: bool
    filled: bool
    rev: int
    position: str | None = None


class Findings(msgspec.Struct):
    """Of one series."""

    series: str
    candles: int = 0
    """Compared over REST."""
    filled: int = 0
    """Outage minutes among them."""
    state: str = "-"
    live: int = 0
    """Messages that came over the WebSocket."""
    closes: int = 0
    """Candles that closed meanwhile."""
    delays: list[float] = []
    """Seconds from Binance's event to the close of each of them here."""
    differences: list[Difference] = []
    unchecked: str = ""
    """Why the series could not be checked; empty when it was."""


def moment(time: int | None) -> str:
    """An open time for people, in UTC."""
    return "-" if time is None else f"{datetime.fromtimestamp(time // 1000, UTC):%Y-%m-%d %H:%M:%S}"
