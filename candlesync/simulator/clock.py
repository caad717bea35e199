"""The market's time, which runs as fast as the settings say and never follows the machine's own clock."""

from __future__ import annotations

import trio

_MINUTE_MS = 60_000


class MarketClock:
    """Market time stands still at ``start`` (UNIX milliseconds) until `run`; then a minute of it lasts
    ``minute_seconds`` seconds of Trio's clock, which is virtual in tests.
    """

    def __init__(self, start: int, minute_seconds: float) -> None:
        self.start = start
        self.minute_seconds = minute_seconds
        self._began: float | None = None

    @property
    def began(self) -> float | None:
        """Trio's time at which it began to run; `None` while it stands still."""
        return self._began

    def run(self) -> None:
        """Let the market's time run from now on."""
        self._began = trio.current_time()

    def now(self) -> int:
        """The market's time in milliseconds."""
        if self._began is None:
            return self.start
        # Rounded, not cut off: whoever slept until `when(time)` finds it to be at least that time.
        return self.start + round((trio.current_time() - self._began) * _MINUTE_MS / self.minute_seconds)

    def when(self, time: int) -> float:
        """Trio's time at which the market's will be ``time``; only while it runs."""
        if self._began is None:
            raise RuntimeError("the market's time stands still")
        return self._began + self.seconds(time - self.start)

    def seconds(self, milliseconds: float) -> float:
        """How many seconds of Trio's clock a span of market time lasts."""
        return milliseconds * self.minute_seconds / _MINUTE_MS

    def milliseconds(self, seconds: float) -> float:
        """How much market time passes in that many seconds."""
        return seconds * _MINUTE_MS / self.minute_seconds
