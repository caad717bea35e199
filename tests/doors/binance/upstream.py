"""Binance as it answers what is passed on, and what it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from candlesync.binance.rest import PassedOn
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.errors import UpstreamUnavailable


class Upstream:
    """Each answer is another one, but for what is set."""

    def __init__(self) -> None:
        self.budget = WeightBudget(WeightSettings(spread=0))
        self.asked: list[dict[str, Any]] = []
        self.delay = 0.0
        self.error: UpstreamUnavailable | None = None
        self.answer: PassedOn | None = None

    async def pass_on(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        weight: int,
        longest: int,  # noqa: ARG002 - its answers are short
        headers: Mapping[str, str] | None = None,
        patience: float = 30.0,  # noqa: ARG002 - it answers, or the test is about that
    ) -> PassedOn:
        self.asked.append({"path": path, "params": dict(params), "weight": weight, "headers": dict(headers or {})})
        number = len(self.asked)
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error.with_traceback(None)
        return self.answer or PassedOn(200, b'{"number":%d}' % number)

    async def use(self, weight: int) -> None:
        """Have so much of the minute's weight used."""
        with await self.budget.spend(1, patience=1) as spend:
            spend.sent()
            spend.report(weight)
