"""The shapes of answers: of a candle, for the document alone, and of what the server says of itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from candlesync.core.interval import Interval


class Candle(msgspec.Struct, frozen=True):
    """A bar of a series. What is sent is made in ``core.wire``, digit for digit, and of no float: a JSON number has no
    other name here.
    """

    symbol: str
    interval: Interval
    time: int
    """The open time, UNIX seconds."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    closed: bool
    """Whether the exchange has finished it."""
    rev: int
    """The revision that last changed it; 0 for what is older than the store."""
    filled: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    """There only if it stands for a minute that the exchange itself does not have."""


class Health(msgspec.Struct, frozen=True):
    """Whether the process is alive."""

    status: Literal["alive", "dead"] = "alive"


class Ready(msgspec.Struct, frozen=True):
    """Whether the server has what it is to have, and what it has not."""

    status: Literal["ready", "not ready", "stopping", "dead"]
    series: dict[str, str]
    """Why each pinned series that is not ready is not."""
    node: str | msgspec.UnsetType = msgspec.UNSET
    """This node's name; only where several share a store."""
    owners: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """The name of each symbol's owner, as far as this node knows; likewise."""
    store: str | msgspec.UnsetType = msgspec.UNSET
    """Why the shared store could not be asked the last time; only when it could not."""


class Listed(msgspec.Struct, frozen=True):
    """A symbol that Binance lists."""

    symbol: str
    status: str
    base: str
    quote: str


class Listing(msgspec.Struct, frozen=True):
    """All that can be asked for."""

    intervals: tuple[Interval, ...]
    symbols: tuple[Listed, ...]
