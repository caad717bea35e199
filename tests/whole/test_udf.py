"""The UDF door of the whole service: what TradingView's adapter draws is what the exchange has, digit for digit."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.interval import Interval
from candlesync.doors.udf.resolutions import RESOLUTIONS
from candlesync.simulator.faults import Drop, Refuse
from candlesync.simulator.settings import SimulatorSettings
from tests.whole.world import World, open_world

REAL_TIME = SimulatorSettings(minute_seconds=60.0)
COLUMNS = ("o", "h", "l", "c", "v")


async def now(world: World) -> int:
    answer = await world.get("/udf/time")
    return int(await answer.get_data())


async def bars(world: World, resolution: str, **question: int) -> dict[int, list[str]]:
    """The bars of an answer by their times, their numbers as they stand in it."""
    query = "&".join(f"{name}={value}" for name, value in question.items())
    answer = await world.get(f"/udf/history?symbol=BTCUSDT&resolution={resolution}&{query}")
    shown: dict[str, Any] = json.loads(await answer.get_data(), parse_float=str)
    assert answer.status_code == 200, shown
    assert shown["s"] == "ok"
    return {time: [shown[name][at] for name in COLUMNS] for at, time in enumerate(shown["t"])}


def truth(world: World, interval: Interval, times: list[int]) -> dict[int, list[str]]:
    """The exchange's final bars of these times."""
    rows = world.exchange.truth("BTCUSDT", interval, times[0] * 1000, times[-1] * 1000)
    return {row.open_time // 1000: [row.open, row.high, row.low, row.close, row.volume] for row in rows}


@pytest.mark.parametrize("resolution", RESOLUTIONS)
async def test_every_resolution_is_the_exchanges_own(resolution: str, autojump_clock: MockClock) -> None:
    interval = RESOLUTIONS[resolution]
    async with open_world(REAL_TIME, Settings()) as world:
        shown = await bars(world, resolution, to=await now(world) + 1, countback=12)
        times = list(shown)
        assert len(times) == 12
        assert all(interval.next(one * 1000) == other * 1000 for one, other in pairwise(times))
        closed = times[:-1]  # the last one is forming
        assert {time: shown[time] for time in closed} == truth(world, interval, closed)


async def test_a_chart_that_polls_as_the_adapter_does_is_true_after_breaks(autojump_clock: MockClock) -> None:
    async with open_world(REAL_TIME, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        end = await now(world)
        drawn = await bars(world, "1", to=end, countback=2_500)
        assert len(drawn) == 2_500
        world.exchange.add_fault(Drop())
        world.exchange.add_fault(Refuse(seconds=50))
        for _ in range(60):
            await trio.sleep(10)
            end = await now(world)
            polled = await bars(world, "1", **{"from": end - 600, "to": end, "countback": 2})
            assert len(polled) == 2
            drawn |= polled
        times = list(drawn)
        assert all(other - one == 60 for one, other in pairwise(times))
        assert len(times) >= 2_509
        closed = times[:-1]
        assert {time: drawn[time] for time in closed} == truth(world, Interval.M1, closed)
