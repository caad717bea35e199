"""How fast Binance is asked again after a ban, and while it does not answer: when nothing is wrong, not slowed at all.

Whoever waits for a ban to end waits for the same moment, hundreds of series among them, and a ban that follows a ban is
longer. And while REST answers nothing of use, each series would go on trying: for hours, as fast as the weight allows,
at a server that is in trouble already.

`Recovery` gives turns, and never looks at a clock: the caller says what time it is, in seconds of one that never goes
back. Turns are given in the order in which they are asked for.
"""

from __future__ import annotations

import math

RECOVERING = 60.0
"""Seconds for which turns are given after a ban, or after the first good answer: a minute of Binance's account."""
TROUBLE = 10
"""Answers of no use in a row that mean that nobody gets any. Fewer may be the bad luck of a few."""


class Recovery:
    """Spreads the weight that is asked for over time, as long as there is a reason to."""

    def __init__(self, after_ban: float, in_trouble: float) -> None:
        """The parts of a minute's limit that may be asked for in a minute; 0: as fast as anybody likes."""
        self._after_ban = after_ban
        self._in_trouble = in_trouble
        self._until = -math.inf
        self._next = -math.inf
        self._failures = 0

    @property
    def is_in_trouble(self) -> bool:
        """Whether Binance answers nothing of use."""
        return self._failures >= TROUBLE

    def banned_until(self, end: float) -> None:
        """Nobody may ask before ``end``."""
        self._until = max(self._until, end + RECOVERING)
        self._next = max(self._next, end)

    def failed(self) -> None:
        """A request had no answer of use."""
        self._failures += 1

    def answered(self, now: float) -> None:
        """A request had one."""
        if self.is_in_trouble:
            # What was to be asked far apart need not be so any more.
            self._until = max(self._until, now + RECOVERING)
            self._next = now
        self._failures = 0

    def opens(self, now: float) -> float:
        """The first moment, ``now`` or later, at which the next turn may be had."""
        return max(now, self._next) if self._share(now) else now

    def take(self, weight: int, limit: int, now: float) -> float:
        """Take that turn, for a request of ``weight`` where ``limit`` is allowed a minute; when it is."""
        share, opens = self._share(now), self.opens(now)
        if share:
            self._next = opens + weight * 60.0 / (limit * share)
        return opens

    def _share(self, now: float) -> float:
        if self.is_in_trouble:
            return self._in_trouble
        return self._after_ban if now < self._until else 0.0
