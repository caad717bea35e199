"""What is said of many simulations together."""

from __future__ import annotations

from math import inf

import pytest

from scripts.simulation.draw import draw
from scripts.simulation.report import Progress
from scripts.simulation.world import Outcome, simulate


def outcome_of(heals: dict[float, int]) -> Outcome:
    return Outcome(seed=1, digest="", violations=(), seconds=60.0, counts={}, faults={}, heals=heals)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({1.0: 0, 5.0: 0, inf: 0}, {1.0: 0, 5.0: 0, inf: 0}, "no gap to heal"),
        (
            {1.0: 1, 5.0: 1, inf: 1},
            {1.0: 0, 5.0: 1, inf: 1},
            "2 gaps healed, from when they could be seen: p50 within 1 s",
        ),
        ({1.0: 1, 5.0: 3, inf: 3}, {1.0: 0, 5.0: 1, inf: 1}, "p50 within 5 s, p99 within 5 s"),
        ({1.0: 99, 5.0: 99, inf: 99}, {1.0: 0, 5.0: 0, inf: 1}, "p50 within 1 s, p99 within 1 s"),
        ({1.0: 98, 5.0: 98, inf: 100}, {1.0: 0, 5.0: 0, inf: 0}, "p50 within 1 s, p99 within inf s"),
    ],
)
def test_how_fast_gaps_were_healed(one: dict[float, int], other: dict[float, int], said: str) -> None:
    progress = Progress(2)
    progress.add(outcome_of(one))
    progress.add(outcome_of(other))
    assert said in progress.summary()


def test_gaps_are_healed_in_a_simulation() -> None:
    outcome = simulate(draw(3000, days=0.03))
    counts = list(outcome.heals.values())
    assert counts == sorted(counts)
    assert counts[-1] > 0
