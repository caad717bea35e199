"""Runs many simulations, on all cores, and gives each outcome as it comes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from .schedule import Schedule
from .world import Outcome, simulate

_EACH = 20
"""Simulations after which a process makes way for a new one, with its memory as it was at the start."""


def run_all(schedules: Iterable[Schedule], jobs: int) -> Iterator[tuple[Schedule, Outcome]]:
    """The outcome of each schedule, in the order in which they end."""
    if jobs == 1:
        yield from map(_run, schedules)
        return
    # Not forked: a history must not depend on what the process did before.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=_EACH) as pool:
        yield from pool.imap_unordered(_run, schedules)


def _run(schedule: Schedule) -> tuple[Schedule, Outcome]:
    return schedule, simulate(schedule)
