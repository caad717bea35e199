"""Candles for tests, made from few words, and the recorded data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.replica import Commit, Replica

BTC = Series("BTCUSDT", Interval.M1)
T0 = 1_700_000_040_000
"""2023-11-14 22:14, the minute in which the tests' series begin."""


def minute(number: int) -> int:
    """The open time of the minute that many after `T0`."""
    return T0 + number * MINUTE


def candle(
    open_time: int = T0,
    close: str = "37012.31000000",
    *,
    interval: Interval = Interval.M1,
    trades: int = 10,
    closed: bool = True,
    **others: Any,
) -> Candle:
    """A candle as Binance may give it; its volumes grow with its trades. ``others`` are fields to be otherwise."""
    made = Candle(
        open_time=open_time,
        open="37000.00000000",
        high="37100.00000000",
        low="36900.00000000",
        close=close,
        volume=f"{trades}.50000000",
        close_time=interval.next(open_time) - 1,
        quote_volume=f"{trades * 37000}.00000000",
        trades=trades,
        taker_base_volume=f"{trades}.25000000",
        taker_quote_volume=f"{trades * 18500}.00000000",
        unused="0",
        closed=closed,
    )
    return msgspec.structs.replace(made, **others)


def forming(open_time: int = T0, close: str = "37012.31000000", *, trades: int = 10, **others: Any) -> Candle:
    """A candle that is still changing."""
    return candle(open_time, close, trades=trades, closed=False, **others)


def flat(open_time: int, close: str = "37012.31000000", *, interval: Interval = Interval.M1) -> Candle:
    """The fill that stands after a candle of `candle` which closed at ``close``; written out, not derived."""
    return Candle(
        open_time=open_time,
        open=close,
        high=close,
        low=close,
        close=close,
        volume="0.00000000",
        close_time=interval.next(open_time) - 1,
        quote_volume="0.00000000",
        trades=0,
        taker_base_volume="0.00000000",
        taker_quote_volume="0.00000000",
        unused="0",
        closed=True,
        filled=True,
    )


def minutes(first: int, last: int, **others: Any) -> list[Candle]:
    """Closed minutes, both ends included, each closing at a price of its own."""
    return [candle(minute(number), f"{37000 + number}.00000000", **others) for number in range(first, last + 1)]


def answer(candles: Sequence[Candle]) -> tuple[Candle, ...]:
    """The candles as a REST answer has them: all final but the newest (invariant 5)."""
    final = [msgspec.structs.replace(row, closed=True) for row in candles[:-1]]
    return (*final, *(msgspec.structs.replace(row, closed=False) for row in candles[-1:]))


def begun(candles: Sequence[Candle], *, series: Series = BTC, history: int = 1000, life: str = "life0") -> Replica:
    """A replica that begins with these candles."""
    replica = Replica(series, history)
    replica.apply(Commit(life, 1, tuple(candles), begins=True))
    return replica


def then(replica: Replica, *candles: Candle, begins: bool = False) -> Commit:
    """The next commit of a series."""
    return Commit(replica.life, replica.revision + 1, candles, begins)


def candles_of(replica: Replica) -> list[Candle]:
    """All candles of a series."""
    return [entry.candle for entry in replica.newest(replica.history)]


def shared_data() -> Path:
    """Where the recorded data lies. Without it the test is skipped; in CI that is a failure."""
    repository = Path(__file__).parent.parent
    path = Path(os.environ.get("CANDLESYNC_SHARED_DATA", repository.parent / "shared" / "data"))
    if not path.is_dir():
        reason = f"no recorded data in {path}: set CANDLESYNC_SHARED_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def unheard() -> None:
    """What is called when an outbox has something that nobody waits for."""
