"""Several nodes over one store: what CI runs of their simulation, each half an hour of much trouble."""

from __future__ import annotations

import pytest

from scripts.simulation import schedule
from scripts.simulation.draw import draw
from scripts.simulation.schedule import Schedule
from scripts.simulation.world import simulate


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_goes_wrong_with_nodes_no_promise_is_broken(seed: int) -> None:
    drawn = draw(seed, days=0.02, troubles=40, nodes=2 + seed % 2)
    outcome = simulate(drawn)
    assert outcome.violations == ()
    assert sum(outcome.faults.values()) == len(drawn.events)
    assert any(kind.startswith("node_") for kind in outcome.faults)
    assert outcome.counts["commits"] > 300
    assert outcome.counts["messages"] > 500


def test_symbols_go_to_the_node_that_is_left_and_come_back() -> None:
    events = (
        schedule.NodeDies(at=400.0, node=0, after=100.0),
        schedule.NodePaused(at=700.0, node=0, seconds=60.0),
        schedule.NodeCutOff(at=1000.0, node=0, seconds=60.0, way="store"),
        schedule.NodeStops(at=1300.0, node=0, after=100.0),
    )
    outcome = simulate(Schedule(seed=1, days=0.02, clients=3, history=60, store="remote", nodes=2, events=events))
    assert outcome.violations == ()
    assert outcome.counts["nodes"] == 4
    assert outcome.counts["claims"] == 2 + 2 * len(events), "each time one goes to the other, and one comes back"
    assert outcome.counts["fenced"] >= 2, "of who was paused, and of who was cut off"
    assert outcome.counts["lives"] == 4, "of four series, none of which has begun anew"


def test_when_a_store_falls_back_as_an_owner_dies_whoever_is_left_knows_what_was_shown() -> None:
    events = (schedule.NodeDies(at=599.5, node=0, after=9.7), schedule.StoreFallsBack(at=600.5, by=12.3))
    outcome = simulate(Schedule(seed=1, days=0.01, clients=5, history=200, store="remote", nodes=2, events=events))
    assert outcome.violations == ()
    assert outcome.counts["lives"] > 4, "what the store has lost has begun anew"
