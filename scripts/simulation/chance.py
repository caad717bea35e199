"""Everything in a process that is left to chance, drawn from one seed instead.

A history is to be the same on each run and in each process. So Trio's order of tasks, the names of lives, the jitter of
pauses, and the keys and masks of WebSockets come from here; the garbage collector, whose moments depend on the machine,
runs when it is told to; and a thread, which nothing could put in order, is an error.

That Trio can be made deterministic is known from ``pytest_trio.plugin``, which does so for hypothesis: within a turn of
the loop, tasks are sorted by age and shuffled with a generator of Trio's own.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from .clock import VirtualClock


@contextmanager
def fixed_chance(seed: str) -> Iterator[None]:
    """Let all that happens by chance in this process depend on ``seed`` alone, for the block. Not to be nested."""
    source = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    reseed = random.Random.seed

    def seed_of(generator: random.Random, value: Any = None, version: int = 2) -> None:
        reseed(generator, source.getrandbits(64) if value is None else value, version)

    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("a thread would make the history depend on the machine")

    shared = random.getstate()
    replaced: list[tuple[Any, str, object]] = [
        (os, "urandom", source.randbytes),
        (random, "_urandom", source.randbytes),  # what `secrets` and `SystemRandom` use
        (random.Random, "seed", seed_of),
        (trio.to_thread, "run_sync", no_thread),
        (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        (trio._core, "MockClock", VirtualClock),  # the one class that Trio lets jump
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    trio._core._run._r.seed(source.getrandbits(64))
    random.seed(source.getrandbits(64))
    gc.collect()
    gc.freeze()  # what is there now stays: it need not be looked through each time
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        for owner, name, value in kept:
            setattr(owner, name, value)
        random.setstate(shared)


def run_alone(main: Callable[..., Any], *arguments: object, seed: str) -> Any:
    """Run an async function in virtual time, with all chance from ``seed``; what it returns."""
    with fixed_chance(seed):
        return trio.run(main, *arguments, clock=VirtualClock())
