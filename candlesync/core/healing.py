"""How gaps of series were found and healed: how many candles they had, and how long each took.

    sighted ──missing candles are known──▶ found ──whole again──▶ healed
       └───────────whole, and nothing was missing───────────▶ forgotten

A gap can be seen from the moment at which the stream is connected again, or shows a candle that does not follow. Until
then nothing could be done, so that the time to heal, which begins there, says how good the sync is and not how long
Binance was away. For how long clients saw a series that was not live is counted beside it (``Hub.not_live``).
"""

from __future__ import annotations

from candlesync.core.histogram import LENGTHS, SPELLS, Histogram


class Healing:
    """Of all series together, since the process began."""

    def __init__(self) -> None:
        self.found = 0
        """Gaps that were seen: on the stream, or in what REST had after the tail."""
        self.open = 0
        """Of them, those that are not healed yet."""
        self.abandoned = 0
        """Of them, those whose series is no longer this node's to heal."""
        self.lengths = Histogram(LENGTHS)
        """Candles that were missing, of each gap that was healed."""
        self.times = Histogram(SPELLS)
        """Seconds from when it could be seen until the series was whole again, of each gap that was healed."""


class SeriesHealing:
    """Of one series: the gap that it may have, and has. Times are the caller's clock, in seconds."""

    def __init__(self, healing: Healing) -> None:
        self._healing = healing
        self._sighted: tuple[float, int] | None = None
        """Since when a gap can be seen, and what the sync had put in until then."""
        self._is_found = False

    def sight(self, now: float, put_in: int) -> None:
        """From now on a gap can be seen. ``put_in`` counts the candles that the sync has put in where some lacked."""
        if self._sighted is None:
            self._sighted = now, put_in

    def find(self) -> None:
        """Candles are known to be missing."""
        if self._sighted is not None and not self._is_found:
            self._is_found = True
            self._healing.found += 1
            self._healing.open += 1

    def heal(self, now: float, put_in: int) -> None:
        """The series is whole."""
        if self._sighted is None:
            return
        since, put_in_before = self._sighted
        length = put_in - put_in_before
        if length:
            self.find()
        if self._is_found:
            self._healing.open -= 1
            self._healing.lengths.observe(length)
            self._healing.times.observe(now - since)
        self._forget()

    def lose_sight(self) -> None:
        """The stream is gone. A gap that was found stays one, and its time goes on."""
        if not self._is_found:
            self._forget()

    def abandon(self) -> None:
        """The series is no longer this node's to heal."""
        if self._is_found:
            self._healing.open -= 1
            self._healing.abandoned += 1
        self._forget()

    def _forget(self) -> None:
        self._sighted, self._is_found = None, False
