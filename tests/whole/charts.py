"""Charts with habits: how people's front-ends come, stay, break off and come back."""

from __future__ import annotations

from random import Random

import trio

from tests.chart import Chart
from tests.whole.world import World


async def stays(world: World, chart: Chart, symbol: str = "BTCUSDT") -> None:
    """Loads once, follows with no parameter, and never reconnects."""
    await world.load(chart, symbol)
    code = await world.follow(chart, symbol)
    chart.wrong.append(f"closed with {code}")


async def resumes_by_position(world: World, chart: Chart, random: Random, symbol: str = "BTCUSDT") -> None:
    """Breaks off again and again, also in the middle of a catch-up, and resumes with its last position."""
    await world.load(chart, symbol)
    while True:
        code = None
        with trio.move_on_after(world.minute * random.uniform(0.1, 12)):
            code = await world.follow(chart, symbol, f"&position={chart.position}")
        if code == 4410:
            await world.load(chart, symbol)
        elif code is not None:
            chart.wrong.append(f"closed with {code}")
        await trio.sleep(world.minute * random.uniform(0, 8))


async def resumes_by_time(world: World, chart: Chart, random: Random, symbol: str = "BTCUSDT") -> None:
    """Breaks off again and again, and asks for everything from its newest candle on.

    It is told nothing of corrections before that, so it loads anew whenever it was away for a closed candle it had.
    """
    await world.load(chart, symbol)
    while True:
        code = None
        with trio.move_on_after(world.minute * random.uniform(0.1, 12)):
            code = await world.follow(chart, symbol, f"&since={chart.newest}")
        if code == 4410:
            await world.load(chart, symbol)
        elif code is not None:
            chart.wrong.append(f"closed with {code}")
        await trio.sleep(world.minute * random.uniform(0, 8))
