"""The simulation can fail: whatever is broken on purpose is seen, for its own reason and within minutes of its time."""

from __future__ import annotations

import pytest

from scripts.simulation.schedule import Schedule
from scripts.simulation.verdict import INVARIANTS
from scripts.simulation.world import simulate
from tests.simulation.broken import BREAKS, Break
from tests.simulation.broken_nodes import BREAKS_OF_NODES
from tests.simulation.leaks import LEAKS

ALL = BREAKS | BREAKS_OF_NODES | LEAKS


def schedule_of(mistake: Break) -> Schedule:
    """The simulation in which a mistake shows."""
    return Schedule(
        seed=mistake.seed,
        days=mistake.days,
        clients=mistake.clients,
        history=mistake.history,
        store="remote" if mistake.store == "remote" else "prompt",
        nodes=mistake.nodes,
        audited=mistake.audited,
        events=mistake.events,
    )


@pytest.mark.parametrize("name", ALL)
def test_what_is_broken_on_purpose_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = ALL[name]
    mistake.patch(monkeypatch)
    found = simulate(schedule_of(mistake)).violations
    assert found, "nothing was seen"
    assert found[0].invariant == mistake.invariant, found[0]
    assert mistake.words in found[0].what


def test_each_invariant_is_broken_by_one_of_them() -> None:
    assert {mistake.invariant for mistake in ALL.values()} == INVARIANTS.keys()
