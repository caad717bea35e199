"""How long Binance's events were on their way: measured for people, and for nothing else."""

from __future__ import annotations

import time
from typing import Final

from candlesync.core.histogram import MOMENTS, Histogram

AGREEMENT: Final = 30.0
"""Seconds that this machine's clock and Binance's may seem apart. An event that is later than that, or that comes
before it was sent, says that the clocks do not agree, and nothing of the way."""


class EventDelay:
    """From the event time that Binance writes into a frame to its arrival, by this machine's clock.

    Invariant 7: no decision compares Binance's time with this machine's clock. None does: what is counted here is read
    by metrics alone. With a wrong clock, or against a simulator whose minutes are short, it counts disagreements.
    """

    def __init__(self) -> None:
        self.delays = Histogram(MOMENTS)
        """Seconds, of the events for which the clocks agree."""
        self.disagreements = 0
        """Events for which they do not."""

    def observe(self, event_time: int) -> None:
        """An event with this time (UNIX milliseconds) has just come."""
        delay = time.time() - event_time / 1000
        if 0.0 <= delay <= AGREEMENT:
            self.delays.observe(delay)
        else:
            self.disagreements += 1
