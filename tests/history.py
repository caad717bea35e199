"""A small Binance that has nothing but the candles of one minute series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.errors import UpstreamUnavailable
from tests.builders import candle, minute


class Exchange:
    """Its klines, of which some may be missing; ``times`` may be changed, to some off the grid too."""

    def __init__(self, first: int, last: int, *, missing: Sequence[int] = ()) -> None:
        lacking = set(missing)
        self.times = [minute(number) for number in range(first, last + 1) if number not in lacking]
        self.budget = WeightBudget(WeightSettings(spread=0))
        self.asked: list[dict[str, Any]] = []
        self.delay = 0.0
        self.error: UpstreamUnavailable | None = None

    async def klines(
        self,
        series: Series,  # noqa: ARG002 - it has but one
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int = 1000,
        patience: float = 30.0,  # noqa: ARG002 - it answers, or the test is about that
    ) -> tuple[Candle, ...]:
        self.asked.append({"start_time": start_time, "end_time": end_time, "limit": limit})
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error.with_traceback(None)
        times = [time for time in self.times if end_time is None or time <= end_time]
        is_forward = start_time is not None
        times = [time for time in times if time >= (start_time or 0)]
        times = times[:limit] if is_forward else times[-limit:]
        return tuple(candle(time, closed=time != times[-1]) for time in times)
