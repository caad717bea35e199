"""Binance's limit on request weight (rest-api.md, "LIMITS"): 429 above it, and a ban for whoever goes on asking.

The minute of the limit is one of Trio's clock, not of the market: a client has to slow down in its own time. There is
one account for all clients, as there would be for one IP address.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import trio

_MINUTE = 60.0
_LONGEST_BAN = 3 * 24 * 3600
"""Three days, as documented."""


class Refusal(NamedTuple):
    """A request that is not served."""

    status: int
    """429 or 418."""
    retry_after: int
    """Seconds."""


class RequestWeight:
    """The weight used in the current minute."""

    def __init__(self, limit: int, *, patience: int, ban_seconds: int) -> None:
        self.limit = limit
        self._patience = patience
        self._ban_seconds = ban_seconds
        self._minute = -1
        self._used = 0
        self._refused = 0
        self._banned_until = float("-inf")

    @property
    def used(self) -> int:
        """The weight used in the current minute."""
        self._turn()
        return self._used

    @property
    def banned(self) -> bool:
        """Whether every request is answered 418."""
        return trio.current_time() < self._banned_until

    def charge(self, weight: int) -> Refusal | None:
        """Count a request; the answer is how it is refused, if it is."""
        self._turn()
        now = trio.current_time()
        if self.banned:
            return Refusal(418, ceil(self._banned_until - now))
        self._used += weight
        if self._used <= self.limit:
            return None
        self._refused += 1
        if self._refused > self._patience:
            self._refused = 0
            self._banned_until = now + self._ban_seconds
            self._ban_seconds = min(self._ban_seconds * 2, _LONGEST_BAN)
            return Refusal(418, ceil(self._banned_until - now))
        return Refusal(429, ceil((self._minute + 1) * _MINUTE - now))

    def _turn(self) -> None:
        minute = int(trio.current_time() // _MINUTE)
        if minute != self._minute:
            self._minute, self._used, self._refused = minute, 0, 0
