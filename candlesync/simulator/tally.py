"""What the simulator has counted, for tests that ask what a client did."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

import trio

_CHANGES = 10_000
"""So many changes of connections, and REST answers, are remembered: hours of tests."""


class Change(NamedTuple):
    """A connection has come to ask for a symbol, or has stopped."""

    time: float
    """Of Trio's clock, in seconds."""
    symbol: str
    connections: int
    """How many ask for the symbol from now on."""


class Answered(NamedTuple):
    """A REST request has been answered."""

    time: float
    """Of Trio's clock, in seconds."""
    path: str
    status: int
    used: int
    """The weight used in the limit's minute until then."""


class Tally:
    """Counters since the start."""

    def __init__(self) -> None:
        self.connections = 0
        """Stream connections that were taken."""
        self.refused = 0
        """Stream connections that were not."""
        self.connections_by_symbol: Counter[str] = Counter()
        """Connections that ever asked for a stream of the symbol, each counted once."""
        self.changes: deque[Change] = deque(maxlen=_CHANGES)
        """Oldest first; what is older than the most that are remembered is gone."""
        self.subscribes = 0
        """SUBSCRIBE messages that changed something."""
        self.unsubscribes = 0
        self.frames = 0
        """Market data frames handed to connections, each as often as it was."""
        self.rest: dict[str, Counter[int]] = {}
        """REST answers by path and status."""
        self.answers: deque[Answered] = deque(maxlen=_CHANGES)
        """Oldest first, as `changes`."""
        self._connections: Counter[str] = Counter()

    def joined(self, symbol: str) -> None:
        """A connection asks for a stream of the symbol that asked for none of it before."""
        self._connected(symbol, 1)

    def left(self, symbol: str) -> None:
        """A connection that asked for streams of the symbol asks for none of it any more, or has ended."""
        self._connected(symbol, -1)

    def answered(self, path: str, status: int, used: int) -> None:
        """Count a REST answer."""
        self.answers.append(Answered(trio.current_time(), path, status, used))
        self.rest.setdefault(path, Counter())[status] += 1

    def _connected(self, symbol: str, more: int) -> None:
        self._connections[symbol] += more
        self.changes.append(Change(trio.current_time(), symbol, self._connections[symbol]))
