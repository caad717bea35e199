"""What the whole service logs while all is well: nothing."""

from __future__ import annotations

import structlog.testing
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.simulator.settings import SimulatorSettings
from tests.whole.world import open_world


async def test_a_thousand_candles_and_their_updates_make_no_line(autojump_clock: MockClock) -> None:
    async with open_world(
        SimulatorSettings(minute_seconds=1.0, update_ms=20_000, connection_seconds=2000.0),
        Settings(symbols=("BTCUSDT",)),
    ) as world:
        await world.until_live()
        topic = world.service.hub.get(Series("BTCUSDT", Interval.M1))
        assert topic is not None
        await trio.sleep(10)
        before, tail = topic.commits, topic.replica.tail
        with structlog.testing.capture_logs() as events:
            await trio.sleep(1005 * world.minute)
        assert tail is not None
        assert topic.replica.tail is not None
        assert topic.replica.tail.open_time - tail.open_time >= 1000 * 60_000
        assert topic.commits - before > 2000, "updates, too"
    assert events == []
