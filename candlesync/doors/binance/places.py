"""Where the present streams of this process are, so that others know it should the process die. Pure.

A place is told only when it has been one for a turn or two: by then what was sent before it has arrived, as far as
networks are well. So whoever goes on from there after this process was killed misses nothing, and gets a second time at
most what was sent in the last turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from math import inf
from typing import NamedTuple

from candlesync.core.departure import Stop


class Standing:
    """Where one present stream is."""

    __slots__ = ("key", "last", "place", "settled")

    def __init__(self, key: str, place: int) -> None:
        self.key = key
        self.place = self.last = self.settled = place
        """Up to where its client was sent everything: now, at the last turn, and for a turn at least."""


class Changes(NamedTuple):
    """What a store is to be told."""

    present: Sequence[Stop]
    departed: Sequence[Stop]


class Places:
    """The places of one process, and what of them a store has not been told yet."""

    def __init__(self, most: int = 200_000) -> None:
        """``most``: streams whose places are kept up, and departures that may wait; of what is beyond nobody is told.

        Each takes some 600 bytes.
        """
        self._most = most
        self._standings: dict[str, dict[Standing, None]] = {}
        """By key; of several clients that are the same in all by which one is known, all."""
        self._count = 0
        self._moved: dict[Standing, None] = {}
        """Since the last turn."""
        self._settling: dict[Standing, None] = {}
        """Whose place at the last turn is not settled yet."""
        self._changed: dict[str, None] = {}
        """Keys of which the store has to be told anew, the longest waiting first."""
        self._departed: dict[str, Stop] = {}
        self._told: set[str] = set()
        """Keys under which the store holds something of us."""

    def __len__(self) -> int:
        return self._count

    @property
    def waiting(self) -> int:
        """How many keys the store has to be told of."""
        return len(self._changed) + len(self._departed)

    @property
    def keys_told(self) -> int:
        """Under how many keys the store holds present streams, if it has lost nothing."""
        return len(self._told)

    def join(self, key: str, place: int) -> Standing:
        """A stream begins to be sent."""
        standing = Standing(key, place)
        if self._count < self._most:
            self._standings.setdefault(key, {})[standing] = None
            self._count += 1
            self._changed[key] = None
        return standing

    def move(self, standing: Standing, place: int) -> None:
        """A stream has been sent everything up to a place."""
        standing.place = place
        self._moved[standing] = None

    def leave(self, standing: Standing, place: int | None) -> None:
        """A stream ends: its client has everything up to a place, or does not want more of it."""
        key = standing.key
        of_key = self._standings.get(key, {})
        if standing in of_key:
            del of_key[standing]
            if not of_key:
                del self._standings[key]
            self._count -= 1
            self._changed[key] = None
        self._moved.pop(standing, None)
        self._settling.pop(standing, None)
        if place is not None:
            self.depart(key, place)

    def depart(self, key: str, place: int, streams: int = 1) -> None:
        """Streams have stopped that are not among the present ones."""
        known = self._departed.get(key)
        if known is not None:
            # They left together: each is given the earliest of their places.
            self._departed[key] = Stop(key, min(known.place, place), known.streams + streams)
        elif len(self._departed) < self._most:
            self._departed[key] = Stop(key, place, streams)

    def has_departed(self, keys: Iterable[str]) -> bool:
        """Whether the store has not been told yet of a departure under one of the keys."""
        return not self._departed.keys().isdisjoint(keys)

    def turn(self) -> None:
        """Settle what has been a place since the turn before the last."""
        for standing in self._settling:
            if standing.settled != standing.last:
                standing.settled = standing.last
                if standing in self._standings.get(standing.key, {}):
                    self._changed[standing.key] = None
        for standing in self._moved:
            standing.last = standing.place
        self._settling, self._moved = self._moved, {}

    def has_more(self, present: float) -> bool:
        """Whether there is something to be told, if so much may be told of present streams."""
        return bool(self._departed) or (present > 0 and bool(self._changed))

    def take(self, most: int, present: float = inf) -> Changes:
        """What is to be told next, of so many keys at most, departures first. If it cannot be told: `put_back`.

        ``present``: of so many keys at most that have no departure.
        """
        departed = [self._departed.pop(key) for key in list(islice(self._departed, most))]
        # With its departure: it is never in neither place, nor in both.
        keys = [stop.key for stop in departed if self._changed.pop(stop.key, self) is None]
        rest = list(islice(self._changed, int(max(min(most - len(departed), present), 0))))
        for key in rest:
            del self._changed[key]
        return Changes([self._present(key) for key in (*keys, *rest)], departed)

    def note_told(self, changes: Changes) -> None:
        """The store has been told."""
        for stop in changes.present:
            if stop.streams:
                self._told.add(stop.key)
            else:
                self._told.discard(stop.key)

    def put_back(self, changes: Changes) -> None:
        """The store has not been told, as far as is known."""
        for stop in changes.present:
            self._changed[stop.key] = None
        for stop in changes.departed:
            self.depart(*stop)

    def tell_all_again(self) -> None:
        """The store has lost some of what it was told."""
        self._changed |= dict.fromkeys(self._standings)

    def _present(self, key: str) -> Stop:
        of_key = self._standings.get(key, {})
        return Stop(key, min((standing.settled for standing in of_key), default=0), len(of_key))
