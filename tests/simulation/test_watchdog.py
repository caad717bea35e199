"""What never gives way, or cannot be cancelled, ends the simulation all the same, and it is told where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from candlesync.synchronizer import Synchronizer
from scripts.simulation import clock, watchdog
from scripts.simulation.schedule import Schedule
from scripts.simulation.world import Outcome, simulate

ROOT = Path(__file__).parents[2]
SHORT = Schedule(seed=1, days=0.01, clients=1)


async def spins(_self: Synchronizer) -> None:
    while True:
        pass


async def cannot_be_cancelled(_self: Synchronizer) -> None:
    with trio.CancelScope(shield=True):
        while True:
            await trio.lowlevel.checkpoint()


async def catches_everything(_self: Synchronizer) -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001, S110 - the worst that can be
            pass


def outcome_with(act: object, patch: pytest.MonkeyPatch, patience: float = 0.5) -> Outcome:
    patch.setattr(watchdog, "PATIENCE", patience)
    patch.setattr(watchdog, "AGAIN", 0.05)
    patch.setattr(clock, "MOST_AT_ONCE", 20_000)
    patch.setattr(Synchronizer, "_step", act)
    before = signal.getsignal(signal.SIGVTALRM)
    outcome = simulate(SHORT)
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    return outcome


def test_a_loop_without_an_await_ends_the_simulation_and_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = outcome_with(spins, monkeypatch).violations
    assert found[0].invariant == "alive"
    assert "of the processor's time" in found[0].what
    assert f"at {__file__}:" in found[0].what
    assert " spins, called at" in found[0].what


def test_so_does_a_livelock_in_a_shield(monkeypatch: pytest.MonkeyPatch) -> None:
    # Enough for the clock to notice first, on any machine.
    found = outcome_with(cannot_be_cancelled, monkeypatch, patience=3.0).violations
    assert [violation.invariant for violation in found] == ["alive", "alive"]
    assert "the clock stands still" in found[0].what, "which its tasks are told by being cancelled"
    assert "of the processor's time" in found[1].what
    assert "cannot_be_cancelled, called at" in found[1].what


def test_what_gets_on_has_all_the_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    progressed, seen = watchdog.Watchdog.progressed, []

    def noted(self: watchdog.Watchdog) -> None:
        progressed(self)
        seen.append(signal.getitimer(signal.ITIMER_VIRTUAL)[0])

    monkeypatch.setattr(watchdog.Watchdog, "progressed", noted)
    outcome = simulate(SHORT)
    assert outcome.violations == ()
    assert len(seen) > outcome.seconds / (2 * clock.PROGRESS)
    assert min(seen) == pytest.approx(watchdog.PATIENCE, abs=0.1)


def test_where_everything_is_caught_the_process_ends_with_the_seed_and_who_waits_for_it_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
from scripts.simulation import runs, watchdog
from tests.simulation import test_watchdog as test

watchdog.PATIENCE, watchdog.AGAIN, watchdog.MOST = 0.5, 0.01, 20
test.Synchronizer._step = test.catches_everything
if __name__ == "__main__":
    list(runs.run_all([test.SHORT], jobs=2))
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr.startswith("seed 1: the clock stood still")
    assert "catches_everything" in ended.stderr
