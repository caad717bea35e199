"""What a store that nodes share knows of departed streams, in memory and in Trio's time: the two scripts, in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import trio

from candlesync.core.departure import ALIVE, KEPT, NOTICED, TOGETHER, Found, Stop

_EPOCH = 1000.0
"""Seconds that the server's clock is ahead of Trio's, which begins with the 0 that says "now"."""


class Held(NamedTuple):
    """Streams of one key that left together."""

    at: float
    stop: Stop
    node: str
    """Whose present streams they were when it ended; empty for what departed before."""


class SharedDepartureMemory:
    """The server's part."""

    def __init__(self, lease: float) -> None:
        self._alive = min(lease, ALIVE)
        self.until: dict[str, float] = {}
        """Until when each node's streams count as present."""
        self.present: dict[str, dict[str, Stop]] = {}
        """By node and key."""
        self.departed: dict[str, list[Held]] = {}
        """By key."""

    def keep(self, node: str, present: Sequence[Stop], departed: Sequence[Stop], *, ends: bool) -> int:
        """See `SharedStore.keep_departures`."""
        now = trio.current_time()
        for stop in departed:
            self.departed.setdefault(stop.key, []).append(Held(now, stop, ""))
        for stop in present:
            self._put(node, stop)
        self.until[node] = now + (0 if ends else self._alive)
        return len(self.present.setdefault(node, {}))

    def take(self, node: str, keys: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        """See `SharedStore.take_departures`."""
        asked = asked_at or round((_EPOCH + trio.current_time()) * 1000)
        return asked, [self._take(node, key, asked / 1000 - _EPOCH) for key in keys]

    def _take(self, node: str, key: str, asked: float) -> Found:
        now = trio.current_time()
        held = [one for one in self.departed.get(key, []) if one.at > now - KEPT]
        is_doubtful = False
        for other in self.until.keys() - {node}:
            stop, until = self.present.get(other, {}).get(key), self.until[other]
            if stop is None:
                continue
            if now - KEPT < until <= now:
                held.append(Held(until, stop, other))
            elif until > now:
                is_doubtful = is_doubtful or until - self._alive < asked + NOTICED
        if not held:
            return Found(None, is_doubtful)
        latest = max(one.at for one in held)
        together = [one for one in held if one.at >= latest - TOGETHER]
        self._remove_one(max(together, key=lambda one: one.stop.place))
        return Found(min(one.stop.place for one in together))

    def _put(self, node: str, stop: Stop) -> None:
        of_node = self.present.setdefault(node, {})
        if stop.streams:
            of_node[stop.key] = stop
        else:
            of_node.pop(stop.key, None)

    def _remove_one(self, held: Held) -> None:
        key, place, streams = held.stop
        left = Stop(key, place, streams - 1)
        if held.node:
            self._put(held.node, left)
        else:
            others = self.departed[key]
            index = others.index(held)
            others[index : index + 1] = [held._replace(stop=left)] if left.streams else []
