"""When a new connection has taken a series over from an old one, so that the old one may go. Pure.

Both carry the series for a while, and Binance sends each of them everything from its subscription on. But one may be
behind the other: by what the network does, or because the new one was subscribed just after something had been sent.
So what the new one shows is held back until the old one has come as far as the first thing that the new one has shown:

    old    ── k forming ──────────── k closed ─ k+1 forming ──┐ as far as the new one's first: taken over
    new              (subscribed) ── k+1 forming ─ k+1 ───────┴── k+1 ── k+1 closed ── …
                                     held back ──────────────▶

**Invariant**: what the sink is shown of a series is what the old connection shows, up to some frame, and from there on
what the new one shows, with nothing missing between the two. For up to there the old one has shown everything, and the
new one has shown everything from its first frame on, which is not after that. What both show comes twice and may come
late: a candle that is not news is dropped by ``core.merge``.

A series of which neither shows anything is quiet. It is taken over when that has lasted: then nothing is on its way any
more of what was sent before the new one was subscribed. A new connection that shows nothing of what the old one shows
is deaf, and takes nothing over. (Binance has acknowledged subscriptions and then sent nothing, for ever.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from candlesync.core.candle import Candle, Series


def _reach(candle: Candle) -> tuple[int, bool, int]:
    """How far a candle is, among those of its series."""
    return candle.open_time, candle.closed, candle.trades


class _Overlap:
    """A series that both connections carry."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.old: Candle | None = None
        """The furthest that the old one has shown since then."""
        self.old_at = since
        """When the old one has last shown something."""
        self.first: Candle | None = None
        """What the new one has shown first."""
        self.held: dict[int, Candle] = {}
        """What it has shown, by open time. Bounded: by the time that a handover may take."""
        self.owed_since: float | None = None
        """Since when the old one has shown what the new one should have, too, without having shown anything."""
        self.is_taken = False

    def hold(self, candle: Candle) -> None:
        known = self.held.get(candle.open_time)
        if known is None or _reach(known) <= _reach(candle):
            self.held[candle.open_time] = candle

    def release(self) -> list[Candle]:
        """What was held back, if the old one has come as far as that; of it, what the old one has not shown."""
        if self.old is None or self.first is None or _reach(self.old) < _reach(self.first):
            return []
        self.is_taken = True
        reach = _reach(self.old)
        released = [self.held[time] for time in sorted(self.held) if _reach(self.held[time]) > reach]
        self.held.clear()
        return released


class Handover:
    """What the connections have shown since both are there. Each call says what time it is, in seconds."""

    def __init__(self, grace: float, settle: float) -> None:
        """Seconds: one connection may be behind the other by ``grace``; ``settle`` is how long quiet has to last."""
        self._grace = grace
        self._settle = settle
        self._overlaps: dict[Series, _Overlap] = {}

    def begin(self, series: Iterable[Series], now: float) -> None:
        """Both connections carry these, as far as is known now."""
        for one in series:
            self._overlap(one, now)

    def forget(self, series: Series) -> None:
        """The series is followed no more, or one connection does not carry it any more: begin anew, if at all."""
        self._overlaps.pop(series, None)

    def old_shows(self, series: Series, candle: Candle, now: float) -> Sequence[Candle]:
        """The old connection has shown a candle, and so has the sink: what comes after it."""
        overlap = self._overlap(series, now)
        if overlap.is_taken:
            return ()
        overlap.old_at = now
        if overlap.old is None or _reach(overlap.old) < _reach(candle):
            overlap.old = candle
        if overlap.first is None and overlap.owed_since is None and now > overlap.since + self._grace:
            overlap.owed_since = now
        return overlap.release()

    def new_shows(self, series: Series, candle: Candle, now: float) -> Sequence[Candle]:
        """The new connection has shown a candle: what the sink is to be shown for it."""
        overlap = self._overlap(series, now)
        if overlap.is_taken:
            return (candle,)
        overlap.owed_since = None
        overlap.first = overlap.first or candle
        overlap.hold(candle)
        return overlap.release()

    def is_complete(self, series: Collection[Series], now: float) -> bool:
        """Whether the new connection has taken all of ``series`` over."""
        return all(self._is_over(one, now) for one in series)

    def is_quiet(self, series: Collection[Series]) -> bool:
        """Whether of one of ``series`` the new connection has shown nothing."""
        return not all(one in self._overlaps and self._overlaps[one].is_taken for one in series)

    def deaf(self, now: float) -> Series | None:
        """A series of which the new connection shows nothing, while the old one does; `None` if there is none."""
        for series, overlap in self._overlaps.items():
            if overlap.owed_since is not None and now - overlap.owed_since >= self._settle:
                return series
        return None

    def _is_over(self, series: Series, now: float) -> bool:
        overlap = self._overlaps.get(series)
        if overlap is None:
            return False
        is_quiet = overlap.first is None and overlap.owed_since is None
        return overlap.is_taken or (is_quiet and now - overlap.old_at >= self._settle)

    def _overlap(self, series: Series, now: float) -> _Overlap:
        overlap = self._overlaps.get(series)
        if overlap is None:
            overlap = self._overlaps[series] = _Overlap(now)
        return overlap
