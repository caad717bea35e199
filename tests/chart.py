"""A chart as people write them: loads over REST, follows a WebSocket, and notes whatever should never happen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from candlesync.core.interval import Interval


class Chart:
    """What one chart shows of one series, and what was wrong with what it was sent."""

    def __init__(self, interval: Interval = Interval.M1) -> None:
        self.interval = interval
        self.candles: dict[int, dict[str, Any]] = {}
        self.position: str | None = None
        self.wrong: list[str] = []
        self.messages = 0

    @property
    def newest(self) -> int:
        """The newest open time in seconds; 0 before the first candle."""
        return next(reversed(self.candles), 0)

    def load(self, body: str | bytes, position: str | None = None) -> None:
        """Show what REST answered, instead of all that was there."""
        self.candles.clear()
        for candle in read(body):
            self._append(candle)
        self.position = position

    def take(self, message: str | bytes) -> None:
        """Show one message of the WebSocket."""
        self.messages += 1
        candle = read(message)
        self.position = candle.pop("position", self.position)
        known = self.candles.get(candle["time"])
        if known is None:
            if candle["time"] < self.newest:
                if candle["time"] > next(iter(self.candles)):
                    self.wrong.append(f"a candle in the middle that was never there: {candle}")
                return
            self._append(candle)
            return
        if candle["rev"] < known["rev"]:
            self.wrong.append(f"an older revision: {candle} after {known}")
        if known["closed"] and not candle["closed"]:
            self.wrong.append(f"forming again: {candle} after {known}")
        if not known["closed"] and float(candle["volume"]) < float(known["volume"]):
            self.wrong.append(f"lost volume: {candle} after {known}")
        self.candles[candle["time"]] = candle

    def compare(self, truth: Sequence[Sequence[Any]]) -> list[str]:
        """What differs from the exchange's final rows, in the closed candles from the first one shown on."""
        wrong = list(self.wrong)
        rows = {row[0] // 1000: row for row in truth}
        for time, candle in self.candles.items():
            row = rows.get(time)
            if candle.get("filled"):
                if row is not None:
                    wrong.append(f"filled, but the exchange has it: {candle}")
            elif candle["closed"] and row is None:
                wrong.append(f"not a candle of the exchange: {candle}")
            elif candle["closed"] and row is not None:
                shown = [candle[name] for name in ("open", "high", "low", "close", "volume")]
                if shown != list(row[1:6]):
                    wrong.append(f"wrong values: {candle}, not {row}")
        first, newest = next(iter(self.candles), 0), self.newest
        wrong += [f"lost: {row}" for time, row in rows.items() if first <= time < newest and time not in self.candles]
        return wrong

    def _append(self, candle: dict[str, Any]) -> None:
        if self.candles:
            last = self.candles[self.newest]
            expected = self.interval.next(self.newest * 1000) // 1000
            if candle["time"] != expected:
                self.wrong.append(f"a jump from {self.newest} to {candle['time']}")
            if not last["closed"]:
                self.wrong.append(f"{candle['time']} follows a candle that is still forming")
        self.candles[candle["time"]] = candle


def read(text: str | bytes) -> Any:
    """JSON with its numbers' digits untouched: decimals are texts."""
    return json.loads(text, parse_float=str)
