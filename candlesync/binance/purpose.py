"""What request weight is spent for, so that who runs a server sees where it goes. Nothing is decided by it.

It is a matter of the task, and of the tasks that are started by it: who asks Binance does not have to be told by
everybody on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum


class Purpose(Enum):
    """What request weight is spent for."""

    SERIES = "series"
    """What is live, or is to be: first candles, what was missed, and whether the newest are true."""
    AUDIT = "audit"
    """The comparison of what is live."""
    LISTING = "listing"
    """The list of symbols."""
    OLDER = "older"
    """Candles before what the store holds, for clients that ask for them."""
    PASSED_ON = "passed_on"
    """What else clients ask, and Binance answers."""


_purpose: ContextVar[Purpose] = ContextVar("purpose", default=Purpose.SERIES)


def spent_for() -> Purpose:
    """What this task spends weight for."""
    return _purpose.get()


@contextmanager
def spending_for(purpose: Purpose) -> Iterator[None]:
    """Have the weight that is spent in the block, by this task, counted to ``purpose``."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)
