"""For how long a symbol has to belong to another node before it is handed over. Pure, and counted in beats.

A node may be there and yet take nothing: one that the store hears, and whose answers do not reach it or come too late.
Whoever hands a symbol to it claims it again after a lease, in which nobody had it, and would hand it over once more,
for ever. So each time that a symbol comes back untaken it is kept for twice as long, until somebody takes it.
"""

from __future__ import annotations

MOST_DOUBLINGS = 8
"""After which it is offered every few minutes: with a lease of two seconds each eight and a half."""


class HandingOver:
    """What one node has handed over."""

    def __init__(self, beats: int) -> None:
        """``beats``: how many a symbol has to belong elsewhere at first."""
        self._beats = beats
        self._offered: set[str] = set()
        """Handed over, and not seen with another node since."""
        self._untaken: dict[str, int] = {}
        """How often in a row each came back untaken."""

    def is_due(self, symbol: str, misplaced: int) -> bool:
        """Whether a symbol that has belonged to another node for ``misplaced`` beats is to be handed over."""
        return misplaced > self._beats << min(self._untaken.get(symbol, 0), MOST_DOUBLINGS)

    def offered(self, symbol: str) -> None:
        """It was handed over."""
        self._offered.add(symbol)

    def taken(self, symbol: str) -> None:
        """Another node owns it."""
        self._offered.discard(symbol)
        self._untaken.pop(symbol, None)

    def claimed(self, symbol: str) -> None:
        """This node owns it (again)."""
        if symbol in self._offered:
            self._offered.discard(symbol)
            self._untaken[symbol] = self._untaken.get(symbol, 0) + 1
