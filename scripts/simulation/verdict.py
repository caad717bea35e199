"""What was found wrong, by the invariant that it breaks."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

INVARIANTS = {
    "continuity": "a candle follows the one before it, and only the last is forming",
    "published after commit": "nothing is sent before the store has it, digit for digit",
    "one act": "what the store has acknowledged is published in the same moment",
    "forming again": "a closed candle never becomes forming again",
    "trades": "a forming candle never loses trades",
    "correction": "a closed candle changes only by a final REST row",
    "final": "the values of a closed candle are the exchange's final ones",
    "outage": "filled is what the exchange lacks, asked twice with a pause, and the stream never showed",
    "order": "a catch-up goes in time order",
    "everything": "a position leaves its client with everything up to it",
    "position": "positions only grow within a life, and a life only changes when the client loads again",
    "back in time": "no client is shown less than it was shown before",
    "fenced": "of several nodes only the one that has claimed a symbol last commits to it, and no token comes twice",
    "owned": "a symbol that no node owns is taken over by one that is well",
    "live": "live is only said of what is connected and whole",
    "bounded": "nothing that waits, and nothing that is held in memory, grows without a bound",
    "alive": "no task dies but by what the schedule did, and no request fails in a way that is not documented",
    "settled": "when nothing is wrong any more, everything is live, up to date, and true",
}
"""The invariants of the design's section 2 and the promises of its section 3, in the words of the checks."""


class Violation(msgspec.Struct, frozen=True):
    """An invariant was broken."""

    invariant: str
    """One of `INVARIANTS`."""
    at: float
    """Seconds of the simulation."""
    what: str


class Verdict:
    """Collects what is wrong; the first ends the simulation."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.violations: list[Violation] = []
        self._on_first = on_first

    def wrong(self, invariant: str, what: str) -> None:
        """Note that an invariant was broken. Never raises: who finds it goes on as if nothing had happened."""
        if invariant not in INVARIANTS:
            raise ValueError(f"{invariant!r} is no invariant")
        self.violations.append(Violation(invariant, round(trio.current_time(), 6), what))
        if len(self.violations) == 1:
            self._on_first()

    def expect(self, condition: bool, invariant: str, what: str, *about: object) -> bool:
        """Note that an invariant was broken unless ``condition``; ``what`` is made with ``about`` only then."""
        if not condition:
            self.wrong(invariant, what.format(*about))
        return condition
