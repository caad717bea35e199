"""The processes that others have started, from ``/proc``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_IS_LISTED = Path("/proc/thread-self/children").exists()
"""Whether this kernel lists children (``CONFIG_PROC_CHILDREN``)."""


def children(process: int) -> set[int]:
    """The living children of a process; none if it has ended."""
    found: set[int] = set()
    with suppress(OSError):
        if not _IS_LISTED:
            return {number for number, parent in _parents() if parent == process}
        for listed in Path(f"/proc/{process}/task").glob("*/children"):
            found.update(map(int, listed.read_text().split()))
    return found


def descendants(process: int) -> Iterator[int]:
    """The living processes that descend from one."""
    for child in children(process):
        yield child
        yield from descendants(child)


def _parents() -> Iterator[tuple[int, int]]:
    """Each living process, and who started it."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # The name in brackets may be anything; what follows is the state, and the parent.
            state, parent, *_ = status.read_text().rpartition(")")[2].split()
            if state != "Z":
                yield int(status.parent.name), int(parent)
