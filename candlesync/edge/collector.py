"""How often Python's cyclic garbage collector interrupts a process that serves."""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 100)
"""Python's own are (700, 10, 10) up to 3.12. Each delivered message makes a few short-lived containers, so that with
300 clients every generation was looked through once a second, for 100 ms, and nothing was found: a third of the CPU and
nearly all of the slowest deliveries (scripts/bench, 2026-11: 159 µs a message and 150 ms p99 before, 84 to 106 µs and
35 to 60 ms after). What is really a cycle here, an exception's traceback above all, is rare."""


def relax() -> None:
    """Let the collector run seldom in this process."""
    gc.set_threshold(*THRESHOLDS)
