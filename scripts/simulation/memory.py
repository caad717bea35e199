"""What the service holds in memory: no more after a year than after an hour.

Looked at when all garbage has been collected, so that what is there is held by somebody:

- **Who has left is gone.** No client's connection and no request is held when nobody has had anything to do with it for
  a while.
- **No class has many objects.** Of each class of the service, and of the libraries that serve its clients, there are as
  many as when it started, and a few for each series, symbol and client that there is now.
- **No object holds many.** A list, dict, set or deque of one of the service's objects holds a series at most.

All of it is counted, not weighed: a count is the same on each run. What a simulation itself holds grows: the candles of
the market up to some thousand a series, the books up to half a day.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Iterator
from math import inf

import trio

from .peer import Peer, Request
from .verdict import Verdict

LET_GO_WITHIN = 900.0
"""Seconds after which nobody holds a client's connection any more; a client itself may have a pause after it."""
EACH = 3
"""Objects of one class for each series, symbol and client. No more than one was seen: a series has a replica here and
another in the store, and a symbol two connections while one takes over, but a series is not a symbol."""
MOST_HELD = 400
"""By one object, where no series is longer: the 300 attempts to connect that Binance allows in five minutes are
remembered."""
LIBRARIES = (
    "flask",
    "h11",
    "httpcore",
    "httpx",
    "quart",
    "quart_trio",
    "structlog",
    "trio_websocket",
    "werkzeug",
    "wsproto",
)
"""Whose objects the service makes for its clients and for Binance's connections. Trio's own are not counted: it keeps
the deadlines of up to a thousand scopes that have ended, to be fast."""
VALUES = ("candlesync.core.candle.Series",)
"""Names of things: whoever keeps books of a series has one, and all of them are equal."""
_CONTAINERS = (list, dict, set, deque)


class Memory:
    """Counts what there is."""

    def __init__(self, verdict: Verdict, history: int) -> None:
        """``history``: candles that the service holds of a series."""
        self._verdict = verdict
        self._most_held = max(history + 1, MOST_HELD)
        self._at_start: Counter[str] = Counter()

    def begin(self) -> None:
        """The service has started, and nobody is there."""
        self._at_start = Counter(name for one in gc.get_objects() if (name := _counted(one)))

    def look(self, present: int) -> None:
        """Count what is held. ``present``: the series and symbols that are followed now, and the clients."""
        there = gc.get_objects()
        expect = self._verdict.expect
        before = trio.current_time() - LET_GO_WITHIN
        left = [
            type(one).__name__ for one in there if isinstance(one, Peer | Request) and (one.left_at or inf) < before
        ]
        expect(not left, "bounded", "held of those that have left: {}", dict(Counter(left)))
        counts = Counter(name for one in there if (name := _counted(one)))
        for name, count in counts.items():
            most = self._at_start[name] + EACH * present
            expect(count <= most, "bounded", "there are {} of {}, and {} present", count, name, present)
        for one in there:
            if _is_ours(type(one)):
                for held in _held(one):
                    expect(len(held) <= self._most_held, "bounded", "{} holds {} things", type(one), len(held))


def _is_ours(kind: type) -> bool:
    module = kind.__module__
    return module.startswith("candlesync.") and not module.startswith("candlesync.simulator")


def _counted(one: object) -> str:
    """The name of an object's class, if it is one of those that are counted; or nothing."""
    kind = type(one)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] in LIBRARIES:
        return name
    return name if _is_ours(kind) and name not in VALUES else ""


def _held(one: object) -> Iterator[list[object] | dict[object, object] | set[object] | deque[object]]:
    """The containers that an object has, and those in them."""
    seen: set[int] = set()
    found: list[object] = list(gc.get_referents(one))
    while found:
        held = found.pop()
        if isinstance(held, _CONTAINERS) and id(held) not in seen:
            seen.add(id(held))
            yield held
            found += held.values() if isinstance(held, dict) else held
