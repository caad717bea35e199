"""Where the streams of all nodes are, or stopped, in Redis: see the two scripts of that name.

All of it is in one slot of a cluster. What a present stream takes is a field of its node's hash, some 100 bytes; what a
departed one takes is a key that expires by itself, some 150.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

import msgspec
import trio

from candlesync.core.candle import LAST_TIME
from candlesync.core.departure import KEPT, NOTICED, TOGETHER, Found, Stop
from candlesync.store import scripts
from candlesync.store.codec import Keys
from candlesync.store.reasons import unexpected
from candlesync.store.scripts import Call

_LONGEST_NAME = 100
"""Characters of a node's identity; ours have 16."""
_FRESH = 1.0
"""Seconds for which it is known who the other nodes are."""

_encode = msgspec.msgpack.Encoder().encode


class RedisDepartures:
    """One node's part in them."""

    def __init__(self, keys: Keys, node: str, alive: float, call: Callable[[Call], Awaitable[object]]) -> None:
        """``alive`` in seconds; ``call`` runs a script and raises `StoreUnavailable`."""
        self._keys = keys
        self._node = node
        self._alive = round(alive * 1000)
        self._call = call
        self._others: list[str] = []
        self._others_known_at: float | None = None

    async def keep(self, present: Sequence[Stop], departed: Sequence[Stop], *, ends: bool = False) -> int:
        """See `SharedStore.keep_departures`."""
        keys = (self._keys.until, self._keys.present(self._node), *map(self._keys.departed, (s.key for s in departed)))
        arguments = (
            self._node,
            0 if ends else self._alive,
            _milliseconds(KEPT),
            _encode(list(chain.from_iterable(present))),
            _encode(list(chain.from_iterable(stop[1:] for stop in departed))),
        )
        match await self._call(Call(scripts.DEPARTURES_KEEP, keys, arguments)):
            case [int(length), list(nodes)] if all(isinstance(node, bytes) for node in nodes):
                others = [node.decode(errors="replace") for node in nodes]
                self._others = [node for node in others if node != self._node and len(node) <= _LONGEST_NAME]
                self._others_known_at = trio.current_time()
                return length
            case reply:
                raise unexpected(reply)

    async def take(self, keys: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        """See `SharedStore.take_departures`."""
        known_at = self._others_known_at
        if known_at is None or trio.current_time() > known_at + _FRESH:
            await self.keep((), ())
        others = list(self._others)
        names = (self._keys.until, *map(self._keys.departed, keys), *map(self._keys.present, others))
        times = (asked_at, _milliseconds(KEPT), _milliseconds(TOGETHER), self._alive, _milliseconds(NOTICED))
        reply = await self._call(Call(scripts.DEPARTURES_TAKE, names, (len(keys), *times, *keys, *others)))
        if not isinstance(reply, list) or len(reply) != 1 + 2 * len(keys):
            raise unexpected(reply)
        told = zip(reply[1::2], reply[2::2], strict=True)
        return _time(reply[0]), [Found(_time(place) if place else None, bool(doubt)) for place, doubt in told]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _time(text: object) -> int:
    if not isinstance(text, bytes) or not text.isdigit() or (time := int(text[:15])) >= LAST_TIME:
        raise unexpected(text)
    return time
