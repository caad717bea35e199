"""What ``scripts/simulate`` prints."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from .schedule import Schedule
from .verdict import INVARIANTS
from .world import Outcome

_EACH = 5.0
"""Seconds between two lines of progress."""


class Progress:
    """Adds up outcomes, and says now and then how far things are."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = self._said = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._heals: Counter[float] = Counter()
        self._days = 0.0
        self._done = 0
        self.failed = 0

    def add(self, outcome: Outcome) -> None:
        """One more is done."""
        self._done += 1
        self.failed += bool(outcome.violations)
        self._days += outcome.seconds / 86_400.0
        self._counts.update(outcome.counts)
        self._faults.update(outcome.faults)
        self._heals.update(outcome.heals)
        if time.monotonic() - self._said >= _EACH:
            self._said = time.monotonic()
            print(f"{self._done} of {self._total} seeds, {self._rate()}, {self.failed} failed", flush=True)

    def _rate(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._began)
        return f"{self._days:.1f} simulated days in {seconds:.0f} s ({self._days / seconds:.3f} days a second)"

    def summary(self) -> str:
        """All of it, at the end."""
        counts = "  ".join(f"{count:,} {name}" for name, count in self._counts.items())
        lines = [f"\n{self._done} seeds: {self._rate()}", counts, f"{self._faults.total():,} faults, by kind:"]
        lines += [f"  {count:8,}  {kind}" for kind, count in self._faults.most_common()]
        lines.append(_tell_heals(self._heals))
        lines.append(
            f"{self.failed} of {self._done} seeds broke an invariant" if self.failed else "no invariant broken"
        )
        return "\n".join(lines)


def _tell_heals(within: Counter[float]) -> str:
    """How fast gaps were healed; ``within``: how many took so many seconds at most."""
    total = max(within.values(), default=0)
    if not total:
        return "no gap to heal"
    # Of the bounds that are counted by, the first that is not less.
    half, most = (min(bound for bound, count in within.items() if count >= part * total) for part in (0.5, 0.99))
    return f"{total:,} gaps healed, from when they could be seen: p50 within {half:g} s, p99 within {most:g} s"


def tell(outcome: Outcome) -> str:
    """What one simulation has found."""
    lines = [f"seed {outcome.seed}: history {outcome.digest}"]
    for violation in outcome.violations[:5]:
        lines.append(f"  {violation.invariant} ({INVARIANTS[violation.invariant]}), at {violation.at:.3f} s:")
        lines.append(f"    {violation.what}")
    return "\n".join(lines)


def tell_failure(schedule: Schedule, outcome: Outcome, path: Path) -> str:
    """How to see a failure again; its schedule is at ``path``."""
    command = f"scripts/simulate --seed {schedule.seed} --schedule {path}"
    left = f"  {len(schedule.events)} events are left of the schedule. To repeat it exactly:"
    return f"{tell(outcome)}\n{left}\n    {command}"


def warn(text: str) -> None:
    """Say something beside the report."""
    print(text, file=sys.stderr, flush=True)
