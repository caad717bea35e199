"""Charts with habits: how people's front-ends come, stay, break off and come back."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import trio

from tests.chart import Chart
from tests.whole.world import World


async def stays(world: World, chart: Chart, symbol: str = "BTCUSDT") -> None:
    """Loads once, follows with no parameter, and never reconnects."""
    await world.load(chart, symbol)
    code = await world.follow(chart, symbol)
    chart.wrong.append(f"closed with {code}")


def by_position(chart: Chart) -> str:
    """Asks for exactly what it missed, also when it broke off in the middle of a catch-up."""
    return f"&position={chart.position}"


def by_time(chart: Chart) -> str:
    """Asks for everything from its newest candle on, which may have been forming when it left."""
    return f"&since={chart.newest}"


async def resumes(
    world: World, chart: Chart, random: Random, ask: Callable[[Chart], str], symbol: str = "BTCUSDT"
) -> None:
    """Breaks off again and again, and comes back; loads again when it is told to."""
    await world.load(chart, symbol)
    while True:
        code = None
        with trio.move_on_after(world.minute * random.uniform(0.1, 12)):
            code = await world.follow(chart, symbol, ask(chart))
        if code == 4410:
            await world.load(chart, symbol)
        elif code is not None:
            chart.wrong.append(f"closed with {code}")
        await trio.sleep(world.minute * random.uniform(0, 8))
