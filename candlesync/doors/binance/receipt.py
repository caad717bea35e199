"""What a client of a stream has received for all that is known: how far its place may be trusted. Pure.

A connection whose client is gone without a word, as when its network has died, takes what it is given for half a minute
more. So the place to which a stream was *sent* is not that to which its client has it. What is certain is older: what
had been sent when the client was last heard of.
"""

from __future__ import annotations

from math import inf

UNDER_WAY = 0.5
"""Seconds that what is sent may be on its way: a client that is heard of sooner need not have it."""
READS_WITHIN = 0.25
"""Seconds in which a client reads what it is sent first, after its handshake or its subscription. On a busy machine it
may take longer; but nobody is to get a second time what was read in the first second."""


class Receipt:
    """Of one stream of one client. Times are seconds, as the caller counts them."""

    __slots__ = ("_changed_at", "_confirmed", "_joined", "_joined_at", "given_at")

    def __init__(self, place: int, now: float) -> None:
        """The stream begins at ``place``."""
        self._joined, self._joined_at = place, now
        self._confirmed, self._changed_at = place, now
        self.given_at = inf
        """When another connection went on from here, as this one's client was silent."""

    def move(self, before: int, heard_at: float, now: float) -> None:
        """The place, which was ``before``, has changed; the client was last heard of at ``heard_at``."""
        self._confirmed = self._certain(before, heard_at)
        self._changed_at = now

    def place(self, sent: int, now: float, silent_since: float | None) -> int:
        """Up to where the client has everything, of what was sent up to ``sent``; ``silent_since``: it does not answer
        pings, and was last heard of then."""
        if now < self._joined_at + READS_WITHIN:
            # What has hardly begun may have been sent a whole catch-up of which its client read nothing.
            return self._joined
        return sent if silent_since is None else self._certain(sent, silent_since)

    def _certain(self, sent: int, heard_at: float) -> int:
        return sent if heard_at >= self._changed_at + UNDER_WAY else self._confirmed
