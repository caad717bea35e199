"""One core for what is measured, another for what measures it: then neither waits for the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Cores:
    """Which core is whose."""

    def __init__(self, available: set[int]) -> None:
        self._server, *others = sorted(available)
        self._load = others[-1] if others else self._server

    @property
    def are_apart(self) -> bool:
        """Whether there are two."""
        return self._server != self._load

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The bench, and all that it starts meanwhile, on its own core; `give` takes a server away from there."""
        before = os.sched_getaffinity(0)
        _pin(os.getpid(), {self._load})
        try:
            yield
        finally:
            _pin(os.getpid(), before)

    def give(self, pid: int) -> None:
        """The other core to a server, with all of its threads, those to come included."""
        _pin(pid, {self._server})


def available_cores() -> Cores:
    """The cores that this process may use."""
    return Cores(os.sched_getaffinity(0))


def _pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(int(thread.name), cores)
