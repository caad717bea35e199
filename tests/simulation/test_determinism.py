"""A seed gives the same history on every run and in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.simulation import draw, schedule
from scripts.simulation.world import simulate

ROOT = Path(__file__).parents[2]


def history(seed: int, hash_seed: str, *options: str) -> str:
    """What one simulation says of itself, in a process of its own."""
    command = [sys.executable, "-m", "scripts.simulation", "--seed", str(seed), "--days", "0.03", *options]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    one, other = history(3, "1"), history(3, "4711")
    assert one.startswith("seed 3: history ")
    assert one == other
    assert history(4, "1") != one


def test_so_it_does_with_several_nodes_and_whatever_the_process_has_done_before() -> None:
    here = simulate(draw.draw(3, days=0.01, troubles=60.0, nodes=2))
    there = history(3, "4711", "--nodes", "2", "--days", "0.01", "--troubles", "60")
    assert there == f"seed 3: history {here.digest}\n"


def test_a_schedule_is_a_function_of_its_seed_and_survives_being_written() -> None:
    drawn = draw.draw(5, 1.0)
    assert draw.draw(5, 1.0) == drawn
    assert draw.draw(6, 1.0) != drawn
    assert len(drawn.events) > 50
    assert schedule.read(schedule.write(drawn)) == drawn
    of_nodes = draw.draw(5, 1.0, nodes=2)
    assert of_nodes.nodes == 2
    assert any(isinstance(event, schedule.NodeDies) for event in of_nodes.events)
    assert schedule.read(schedule.write(of_nodes)) == of_nodes
