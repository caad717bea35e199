"""Where streams stopped whose sockets have ended, so that the client that comes back goes on from there. Pure.

A client of Binance's streams has no position to give: it connects again and subscribes as if for the first time. So for
some minutes it is remembered where each departed stream stopped, under all that is known of whose it was: the address
as the limits count it, the program with the URL that it asked for, and the stream. The next subscription under the same
key takes it over, and gets the closed candles from there on first. Each departure is taken over once; who comes when
there is none begins with what comes.

That is a guess where clients with one address, one program and one URL are away at the same time. One that is wrongly
matched gets closed candles of the true series that are not new to it, or too few. Two rules make that rare:

- The latest departure counts: one that has just broken is not given the place of one that ended minutes ago for good.
- Those that left together, as when a network breaks or this server ends, come back in any order. Each is given the
  earliest of their places: some may get a closed candle a second time, none goes without one.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import NamedTuple

from candlesync.core.departure import KEPT, TOGETHER


class Key(NamedTuple):
    """Whose stream it was."""

    address: str
    program: bytes
    """What tells programs and their connections apart, in 16 bytes."""
    stream: str

    @property
    def digest(self) -> str:
        """What stands for it in a store: nobody's address is kept there."""
        told = b"\n".join((self.address.encode(), self.program.hex().encode(), self.stream.encode()))
        return blake2b(told, digest_size=16).hexdigest()


class DeparturesStatistics(NamedTuple):
    """What has become of departed streams since the start."""

    remembered: int
    taken: int
    """By a stream that went on from there."""
    held: int
    """That may still be taken."""


class _Departure(NamedTuple):
    key: Key
    at: float
    place: int


class Departures:
    """The departures of this process. The caller says what time it is, in seconds."""

    def __init__(self, kept: float = KEPT, together: float = TOGETHER, most: int = 10_000) -> None:
        """
        ``kept``: seconds for which a departure is remembered; ``together``: seconds within which one break ends the
        sockets that it ends. Both as all nodes have them (`core.departure`).

        ``most``: departures remembered, some 500 bytes each; beyond it the oldest is forgotten.
        """
        self._kept = kept
        self._together = together
        self._most = most
        self._departures: OrderedDict[int, _Departure] = OrderedDict()
        """By number, the oldest first."""
        self._by_key: dict[Key, list[int]] = {}
        self._number = 0
        self._taken = 0

    def statistics(self) -> DeparturesStatistics:
        """What has become of them until now."""
        return DeparturesStatistics(self._number, self._taken, len(self._departures))

    def __len__(self) -> int:
        return len(self._departures)

    def remember(self, key: Key, place: int, now: float) -> None:
        """A stream has stopped at ``place`` (milliseconds), up to which its client has all closed candles."""
        self._number += 1
        self._departures[self._number] = _Departure(key, now, place)
        self._by_key.setdefault(key, []).append(self._number)
        self._forget_old(now)

    def take(self, key: Key, now: float) -> int | None:
        """Take over a departed stream: the place to go on from, or `None` when none is known."""
        self._forget_old(now)
        numbers = self._by_key.get(key)
        if numbers is None:
            return None
        latest = self._departures[numbers[-1]].at
        together = [number for number in numbers if self._departures[number].at >= latest - self._together]
        self._taken += 1
        place = min(self._departures[number].place for number in together)
        # The one that goes further than the others would need stays for nobody: they all get the earliest.
        self._forget(max(together, key=lambda number: self._departures[number].place))
        return place

    def note_taken(self, key: Key, place: int | None, now: float) -> None:
        """A memory that all nodes share has said where to go on from, if anywhere: it knows better."""
        self._forget_old(now)
        numbers = self._by_key.get(key, [])
        if place is None:
            for number in list(numbers):
                self._forget(number)
            return
        self._taken += 1
        if numbers:
            self._forget(max(numbers, key=lambda number: self._departures[number].place))

    def _forget_old(self, now: float) -> None:
        while self._departures:
            oldest = next(iter(self._departures))
            if len(self._departures) <= self._most and self._departures[oldest].at > now - self._kept:
                break
            self._forget(oldest)

    def _forget(self, number: int) -> None:
        key = self._departures.pop(number).key
        numbers = self._by_key[key]
        numbers.remove(number)
        if not numbers:
            del self._by_key[key]
