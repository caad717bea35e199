"""What an owner tells its followers of a symbol: the state and the position of each of its series. Pure."""

from __future__ import annotations

import msgspec

from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.sync import State


class SeriesReport(msgspec.Struct, frozen=True):
    """One series as its owner has it."""

    state: State
    position: Position
    """All commits up to it were announced before the report was."""


class Report(msgspec.Struct, frozen=True):
    """A symbol as its owner has it; told with each renewal of the lease, and at once when a state changes."""

    owner: str
    """The node's identity."""
    series: dict[Interval, SeriesReport]
    """Every series of the symbol that the owner follows."""


class Release(msgspec.Struct, frozen=True):
    """An owner has given a symbol up: whoever wants it may claim it."""

    owner: str
    """The node that gave it up."""
    successor: str = ""
    """The node that is to have it; empty when there is none in particular."""
