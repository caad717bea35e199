"""A service that has died says so, whoever still answers for it."""

from __future__ import annotations

import json

import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.service import Service
from candlesync.simulator.settings import SimulatorSettings
from tests.whole.world import open_world


async def test_a_service_is_alive_while_it_runs(autojump_clock: MockClock) -> None:
    async with open_world(SimulatorSettings(minute_seconds=60.0), Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        assert (await world.get("/health")).status_code == 200
        service = world.service
    for path in ("/health", "/ready"):
        answer = await service.app.test_client().get(path)
        assert answer.status_code == 503
        assert json.loads(await answer.get_data())["status"] == "dead"


async def test_before_it_runs_it_is_not_alive(autojump_clock: MockClock) -> None:
    assert (await Service(Settings()).app.test_client().get("/health")).status_code == 503


async def test_from_when_a_part_fails_it_is_dead_while_the_others_still_end(autojump_clock: MockClock) -> None:
    async with open_world(SimulatorSettings(minute_seconds=60.0), Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        world.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            assert (await world.get("/health")).status_code == 503
