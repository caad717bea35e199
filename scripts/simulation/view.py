"""What one client has of one series, and whether it is what the contract promises (design, section 3).

A client knows what REST and WebSockets have told it. Each message is held against that, and against the books.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec

from candlesync.core.candle import Series

from .ledger import Ledger, Said
from .truth import Truth
from .verdict import Verdict

LOOKED_BACK = 50
"""Revisions before a position for which what REST answers is looked through."""


class Shown(msgspec.Struct, frozen=True, gc=False):
    """A candle as a client has it."""

    said: Said
    revision: int
    life: str


read: Callable[[str | bytes], Any] = msgspec.json.Decoder(float_hook=str).decode
"""Reads JSON with its numbers' digits untouched: decimals are texts."""

_values = itemgetter("open", "high", "low", "close", "volume", "closed")


def _said(message: dict[str, Any]) -> Said:
    said: Said = (*_values(message), message.get("filled", False))
    return said


def _position(text: str) -> tuple[str, int]:
    """Life and revision. To clients a position is opaque; these clients look into it, to check it."""
    life, _, revision = text.partition("-")
    return life, int(revision)


class View:
    """The candles of one series, and the position that its client would resume from."""

    def __init__(self, name: str, series: Series, ledger: Ledger, truth: Truth, verdict: Verdict) -> None:
        # What has left the service's history is corrected no more, so a view keeps no more than that.
        self.name = f"{name} {series}"
        self.series = series
        self.candles: dict[int, Shown] = {}
        """By open time in milliseconds, ascending."""
        self.position: str | None = None
        self.lives_told = 0
        """Of the times that the series became live, those up to which the client was told so."""
        self._ledger = ledger
        self._truth = truth
        self._verdict = verdict
        self._step = series.interval.next(0)
        self._life = ""
        """Of the last position."""
        self._revision = 0
        self._covered_from = 0
        """Candles that open before this are not covered by the position."""
        self._is_fresh = False
        """Whether the connection has sent no position yet, and the client did not say one."""
        self._last_of_batch = 0

    @property
    def newest(self) -> int:
        """The newest open time; 0 before the first candle."""
        return next(reversed(self.candles), 0)

    def connects(self, *, with_position: bool) -> None:
        """A connection begins, with the position or with another parameter."""
        self._last_of_batch = 0
        self._is_fresh = not with_position
        if not with_position:
            self._covered_from = -1  # the first candle that it sends will tell

    def load(self, body: bytes, position: str) -> None:
        """Show what REST has answered, instead of all that was there."""
        before = self.candles
        self.candles = {}
        life, revision = _position(position)
        for message in read(body):
            self._enter(message, life)
        newest = next(reversed(before), 0)
        self._expect(self.newest >= newest, "back in time", "loaded up to {}, after {}", self.newest, newest)
        self.check_rows(list(self.candles.items()))
        for time, shown in self.candles.items():
            known = before.get(time)
            if known is not None:
                self._check_not_back(time, known.said, shown.said)
        self.position, self._life, self._revision, self._covered_from = position, life, revision, 0
        self._check_everything(max(0, revision - LOOKED_BACK), is_load=True)

    def take(self, message: dict[str, Any]) -> None:
        """Show one message of a WebSocket."""
        position = message.get("position")
        time = message["time"] * 1000
        self._expect(time > self._last_of_batch, "order", "{} after {} in one catch-up", time, self._last_of_batch)
        self._last_of_batch = time if position is None else 0
        if self._covered_from < 0:
            self._covered_from = time
        life = "" if self._is_fresh else self._life
        if position is not None:
            life = _position(position)[0]
        self._enter(message, life)
        if position is not None:
            self._move(position, time)

    def check_rows(self, rows: Sequence[tuple[int, Shown]]) -> None:
        """Each follows the one before it, and only the last is forming."""
        for (one, shown), (other, _) in pairwise(rows):
            if other != one + self._step or not shown.said[5]:
                self._expect(False, "continuity", "{} is followed by {}", shown, other)

    def compare(self) -> list[str]:
        """What differs from the exchange's truth, digit for digit, in what the position covers."""
        wrong = []
        for time, shown in self.candles.items():
            if time < self._covered_from:
                continue  # who asks for candles from a time on is not told that an older one was corrected
            final = self._truth.final(self.series, time)
            *values, closed, filled = shown.said
            if filled or self._truth.is_outage(self.series, time):
                if not (filled and self._truth.is_outage(self.series, time)):
                    wrong.append(f"{time}: {shown}, and the exchange has {final}")
            elif final is None or (closed and values != list(final[1:6])):
                wrong.append(f"{time}: {shown} is not {final}")
            elif not closed and time != self.newest:
                wrong.append(f"{time}: {shown} is still forming")
        if len(self.candles) > 1 and (self.newest - next(iter(self.candles))) != (len(self.candles) - 1) * self._step:
            wrong.append("open times are missing")
        return wrong

    # --- the parts

    def _enter(self, message: dict[str, Any], life: str) -> None:
        time, said, revision = message["time"] * 1000, _said(message), message["rev"]
        shown = Shown(said, revision, life)
        book = self._ledger.book(self.series)
        commits = book.said.get((time, revision), [])
        for of, known_said in commits:
            if said == known_said and life in ("", of):
                break
        else:
            self._expect(False, "published after commit", "{} is in no commit: {}", message, commits)
        known = self.candles.get(time)
        if known is not None:
            self._check_not_back(time, known.said, said)
            if life == known.life and life and revision < known.revision:
                self._expect(False, "back in time", "{} after {}", shown, known)
        elif self.candles and time > self.newest:
            newest = self.candles[self.newest]
            fits = time == self.newest + self._step and newest.said[5]
            self._expect(fits, "continuity", "{} comes after {} {}", time, self.newest, newest)
        elif self.candles and time > next(iter(self.candles)):
            self._expect(False, "continuity", "{} in the middle was never there", time)
        elif self.candles:
            return  # older than what is shown
        self.candles[time] = shown
        if len(self.candles) > self._ledger.history:
            del self.candles[next(iter(self.candles))]

    def _check_not_back(self, time: int, known: Said, said: Said) -> None:
        if known[5]:
            if not said[5]:
                self._expect(False, "forming again", "{}: {} after {}", time, said, known)
        elif not said[5] and float(said[4]) < float(known[4]):
            self._expect(False, "trades", "{}: {} after {}", time, said, known)

    def _move(self, text: str, time: int) -> None:
        """The client has everything up to a position; ``time`` is the candle that it came with."""
        life, revision = _position(text)
        self.position = text
        if self._is_fresh:
            self._is_fresh = False
            self._life, self._revision = life, revision
            return
        self._expect(
            life == self._life and revision >= self._revision,
            "position",
            "{} after {}-{} on candle {}",
            *(text, self._life, self._revision, time),
        )
        before, self._revision = self._revision, revision
        self._check_everything(before)
        self._life = life

    def _check_everything(self, before: int, *, is_load: bool = False) -> None:
        """Whether all that changed after a revision is shown as it was at the position."""
        book = self._ledger.book(self.series)
        expected: dict[int, int] = {}
        for revision in range(before + 1, self._revision + 1):
            times = book.commits.get((self._life, revision))
            if times is None:
                continue  # of long ago
            if not is_load and book.begun_at.get(self._life, 0) == revision:
                self._expect(False, "everything", "the series began again with {}-{}", self._life, revision)
            expected |= dict.fromkeys(times, revision)
        first = max(next(iter(self.candles), 0), self._covered_from)
        for time, revision in expected.items():
            shown = self.candles.get(time)
            if time < first:
                continue
            if shown is None or shown.revision != revision:
                self._expect(
                    False,
                    "everything",
                    "at {}-{} candle {} is {}, not of revision {}",
                    *(self._life, self._revision),
                    *(time, shown, revision),
                )

    def _expect(self, condition: bool, invariant: str, what: str, *about: object) -> None:
        self._verdict.expect(condition, invariant, "{}: " + what, self.name, *about)
