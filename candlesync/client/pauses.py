"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import Final


class Pauses:
    """How long to wait between attempts: each time up to twice as long, until one succeeds."""

    FIRST: Final = 0.25
    LAST: Final = 10.0
    MOST: Final = 300.0
    """Seconds that are waited because the server says so; it may ask for more, but asking again costs it little."""

    def __init__(self) -> None:
        self._next = self.FIRST

    def take(self, at_least: float = 0.0) -> float:
        """Seconds to wait before the next attempt."""
        # Scattered, lest all clients of a server that was away come in the same moment.
        seconds = self._next * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._next = min(2 * self._next, self.LAST)
        return max(seconds, min(at_least, self.MOST))

    def succeed(self) -> None:
        """Begin anew with short ones."""
        self._next = self.FIRST
