"""Where streams of clients that have no position to give are, or stopped: what the nodes of a shared store tell it."""

from __future__ import annotations

from typing import NamedTuple

KEPT = 300.0
"""Seconds for which a departure is remembered. Client libraries come back within a minute, and a program that is
started anew within a few; every history is longer than that (1000 candles of a second). What is older is more likely to
be somebody's who is gone."""
TOGETHER = 5.0
"""Seconds within which one break ends the sockets that it ends."""
ALIVE = 2.0
"""Seconds for which a node counts as there after it has said so; as long as a lease where that is shorter."""
NOTICED = 0.1
"""Seconds in which a node that turns notices that a client's socket has ended."""


class Stop(NamedTuple):
    """Streams that are the same in all by which one is known: where they are, or where they stopped."""

    key: str
    """Whose they are: a digest, in hexadecimal digits."""
    place: int
    """Milliseconds; the earliest of theirs. Up to there their clients have all closed candles."""
    streams: int
    """How many. With none it says that there are none any more."""


class Found(NamedTuple):
    """What is known of one key in a shared store."""

    place: int | None
    """Where to go on from; it is taken with that. `None`: no stream of it has departed."""
    is_doubtful: bool = False
    """Whether one is present at another node that has not said since that it is there: it may have died, or not have
    noticed yet that the socket has ended. To be asked again."""
