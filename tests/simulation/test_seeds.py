"""What CI runs of the simulation: a fixed number of seeds, each an hour and a half of trouble."""

from __future__ import annotations

import pytest

from scripts.simulation.draw import draw
from scripts.simulation.world import simulate


@pytest.mark.parametrize("seed", range(8))
def test_whatever_goes_wrong_no_promise_is_broken(seed: int) -> None:
    schedule = draw(seed, days=0.06)
    outcome = simulate(schedule)
    assert outcome.violations == ()
    assert sum(outcome.faults.values()) == len(schedule.events)
    assert outcome.counts["commits"] > 500
    assert outcome.counts["messages"] > 1000
