"""A client's view of one series, and what the contract promises of each step of it. Pure.

The view is loaded over REST and follows the WebSocket, as a chart is. It notes what a chart should never see: a missing
minute, a minute that goes back, a message that does not say where to resume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from candlesync.core.candle import Candle, Series
from candlesync.verify.findings import VALUES, Difference, Shown


class View:
    """What a client has of a series."""

    def __init__(self, series: Series) -> None:
        self._interval = series.interval
        self.candles: dict[int, Shown] = {}
        """By open time, ascending."""
        self.differences: list[Difference] = []
        self._without_position: Shown | None = None
        """The last message, if it did not end with a position."""

    @property
    def newest(self) -> Shown | None:
        """The candle with the latest open time."""
        return next(reversed(self.candles.values()), None)

    def load(self, candles: Iterable[Shown]) -> None:
        """An answer of REST: an ascending, continuous array, of which only the last may be forming.

        It may be of another life than what was before: revisions are not compared with those.
        """
        self._without_position = None
        loaded: dict[int, Shown] = {}
        before: Shown | None = None
        for candle in candles:
            if not self._interval.is_open_time(candle.time):
                self._note(candle.time, "time", "no open time of the interval", "one of its grid")
            if before is not None:
                self._follow(before, candle)
            loaded[candle.time] = before = candle
        # In the order of time, whatever the server's was.
        self.candles = dict(sorted((self.candles | loaded).items()))

    def take(self, candle: Shown) -> None:
        """A message of the WebSocket."""
        alone = self._without_position
        if alone is not None and candle.time <= alone.time:
            self._note(alone.time, "position", "-", "the end of what was sent together")
        self._without_position = candle if candle.position is None else None
        known, newest = self.candles.get(candle.time), self.newest
        if known is not None:
            self._change(known, candle)
            self.candles[candle.time] = candle
        elif newest is None or candle.time > newest.time:
            if newest is not None:
                self._follow(newest, candle)
            self.candles[candle.time] = candle

    def end(self) -> None:
        """Nothing more comes."""
        if self._without_position is not None:
            self._note(self._without_position.time, "position", "-", "the end of what was sent together")

    def _follow(self, before: Shown, candle: Shown) -> None:
        expected = self._interval.next(before.time)
        if candle.time <= before.time:
            self._note(candle.time, "order", f"after {before.time // 1000}", "after what is before it")
            return
        if candle.time != expected:
            missing = self._interval.steps(expected, candle.time)
            self._note(expected, "missing", f"a hole of {missing or 'some'} before {candle.time // 1000}", "continuous")
        if not before.closed:
            self._note(before.time, "closed", "false, with a later candle after it", "true")

    def _change(self, known: Shown, candle: Shown) -> None:
        if candle.rev < known.rev:
            self._note(candle.time, "rev", f"{candle.rev} after {known.rev}", "the same or more")
        elif candle.rev == known.rev and (candle.values, candle.closed) != (known.values, known.closed):
            self._note(candle.time, "rev", f"{candle.rev} again, with other values", "one for each change")
        if known.closed and not candle.closed:
            self._note(candle.time, "closed", "false after true", "true for good")

    def _note(self, time: int, field: str, served: str, due: str) -> None:
        self.differences.append(Difference(time, field, served, due, by_contract=True))


def compare(series: Series, view: View, rows: Iterable[Candle]) -> Iterator[Difference]:
    """What in a view is not as Binance's final rows say. ``rows`` ascend; those that are not final are left out.

    Invariant 5: a row is final only if a later one stands in the same answer.
    """
    final = {row.open_time: row for row in rows if row.closed}
    if not final or not view.candles:
        return
    first, last = next(iter(view.candles)), max(final)
    for time, row in final.items():
        shown = view.candles.get(time)
        newest = view.newest
        if shown is None:
            if newest is not None and first < time < newest.time:
                yield Difference(time, "missing", "-", f"close {row.close}")
        elif shown.filled:
            yield Difference(time, "filled", "true: an outage", f"close {row.close}, volume {row.volume}")
        elif shown.closed:
            yield from _judge_values(shown, row)
    for time, shown in view.candles.items():
        if min(final) <= time <= last and time not in final:
            yield from _judge_fill(series, view, shown)


def _judge_values(shown: Shown, row: Candle) -> Iterator[Difference]:
    theirs = (row.open, row.high, row.low, row.close, row.volume)
    for name, ours, true in zip(VALUES, shown.values, theirs, strict=True):
        if ours != true:
            yield Difference(shown.time, name, ours, true)


def _judge_fill(series: Series, view: View, shown: Shown) -> Iterator[Difference]:
    """A candle where Binance has none stands for an outage, and is flat at the close before it."""
    if not shown.filled:
        yield Difference(shown.time, "filled", "false", "has no such candle")
        return
    before = view.candles.get(series.interval.previous(shown.time))
    if before is not None:
        close = before.values[VALUES.index("close")]
        for name, ours in zip(VALUES, shown.values, strict=True):
            is_right = not ours.strip("0.") if name == "volume" else ours == close
            if not is_right:
                yield Difference(shown.time, name, ours, "0 in an outage" if name == "volume" else f"{close} before it")
