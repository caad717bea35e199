"""Virtual time: the times that Trio's own mock clock tells, and a livelock at one instant that is seen."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from candlesync.synchronizer import Synchronizer
from scripts.simulation import clock
from scripts.simulation.chance import run_alone
from scripts.simulation.schedule import Schedule
from scripts.simulation.world import simulate


async def some_times() -> list[float]:
    """When some tasks have run that sleep, wait for each other, and are cancelled."""
    times = []
    woken = trio.Event()

    async def wake() -> None:
        for number in range(1, 40):
            await trio.sleep(0.1 * number)
            times.append(trio.current_time())
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake)
        for seconds in (0.3, 7.7, 1e6):
            with trio.move_on_after(seconds):
                await woken.wait()
            times.append(trio.current_time())
    return times


def test_it_tells_the_times_of_the_mock_clock() -> None:
    expected = trio.run(some_times, clock=trio.testing.MockClock(autojump_threshold=0))
    assert run_alone(some_times, seed="clock") == expected
    assert len(expected) == 42


def test_a_livelock_ends_the_simulation_and_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_self: Synchronizer) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(clock, "MOST_AT_ONCE", 20_000)
    monkeypatch.setattr(Synchronizer, "_step", broken)
    outcome = simulate(Schedule(seed=1, days=0.01, clients=1))
    assert outcome.violations[0].invariant == "alive"
    assert "the clock stands still" in outcome.violations[0].what
    assert "tests/simulation/test_clock.py" in outcome.violations[0].what
    assert outcome.seconds < 60
