"""Where the candles of a symbol come from: what the walk and the files have in common.

A source holds the *final* candles of a few intervals, its levels; all other intervals are made of them (`Series`).
What a candle looked like before it was final is derived from the finest level by its `Tape`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from candlesync.core.interval import Interval
from candlesync.simulator.bars import LENGTH, Bar, Row, tiles
from candlesync.simulator.tape import Tape

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Shelf(Generic[Key, Value]):
    """A bounded memory of what can be made again: the one kept longest makes room."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        return self._kept.get(key)

    def put(self, key: Key, value: Value) -> Value:
        while len(self._kept) >= self._size:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = value
        return value


class Source(ABC):
    """The final candles of one symbol, a pure function of its settings."""

    levels: tuple[Interval, ...]
    """The intervals that are held, coarsest first; the last is the finest."""
    first: int
    """The open time of the first candle of any level."""
    last: int | None
    """The open time of the last one; `None` for a market without an end."""

    def __init__(self, seed: object) -> None:
        self._seed = seed
        self._tapes: Shelf[int, Tape] = Shelf(64)

    @abstractmethod
    def bars(self, level: Interval, start: int, end: int) -> Sequence[Bar]:
        """The final candles of a level that open from ``start`` to before ``end``, oldest first."""

    @abstractmethod
    def row(self, interval: Interval, open_time: int) -> Row | None:
        """The candle as a file has it, digit for digit; `None` when it is in none."""

    @property
    def finest(self) -> Interval:
        return self.levels[-1]

    def chain(self, interval: Interval) -> tuple[Interval, ...]:
        """The levels that candles of ``interval`` are made of, coarsest first; empty for one finer than all."""
        chain: list[Interval] = []
        for level in self.levels:
            if tiles(level, chain[-1] if chain else interval):
                chain.append(level)
        return tuple(chain)

    def holding(self, level: Interval, now: int) -> Bar | None:
        """The candle of a level in whose time ``now`` is, be it that it closed early; `None` when there is none."""
        bars = self.bars(level, now - LENGTH[level] + 1, now + 1)
        return bars[-1] if bars else None

    def tape(self, bar: Bar) -> Tape:
        """The trades inside a candle of the finest level."""
        tape = self._tapes.get(bar.open_time)
        if tape is None:
            before = self.bars(self.finest, self.finest.previous(bar.open_time), bar.open_time)
            gap = not before or before[-1].close != bar.open
            tape = self._tapes.put(bar.open_time, Tape(bar, seed=self._seed, opens_at_once=gap))
        return tape
