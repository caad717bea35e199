"""What the simulator has counted, for tests that ask what a client did."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Counters since the start."""

    def __init__(self) -> None:
        self.connections = 0
        """Stream connections that were taken."""
        self.refused = 0
        """Stream connections that were not."""
        self.connections_by_symbol: Counter[str] = Counter()
        """Connections that ever asked for a stream of the symbol, each counted once."""
        self.subscribes = 0
        """SUBSCRIBE messages that changed something."""
        self.unsubscribes = 0
        self.frames = 0
        """Market data frames handed to connections, each as often as it was."""
        self.rest: dict[str, Counter[int]] = {}
        """REST answers by path and status."""

    def answered(self, path: str, status: int) -> None:
        """Count a REST answer."""
        self.rest.setdefault(path, Counter())[status] += 1
