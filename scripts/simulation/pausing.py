"""Pauses a part of the tasks while all others go on: a process that is stopped for a while, as by its own garbage.

Whatever wakes a paused task (an event, a deadline that has passed, a cancellation) schedules it, as ever; but it is not
run before it goes on. Its timers thus fire late, and it finds the world as it has become meanwhile.

Trio has no such thing, so this reaches into its run queue. The patch is there only as long as something is paused.
"""

from __future__ import annotations

from typing import Any

import trio
from trio._core import _run

_roots: dict[trio.lowlevel.Task, list[trio.lowlevel.Task]] = {}
"""What is paused: all tasks from these on, and those of them that would run by now."""
_reschedule = _run.Runner.reschedule


def is_below(task: trio.lowlevel.Task, root: trio.lowlevel.Task) -> bool:
    """Whether ``task`` is ``root``, or lives in a nursery of it, or in one of those that do."""
    current: trio.lowlevel.Task | None = task
    while current is not None:
        if current is root:
            return True
        nursery = current.parent_nursery
        current = None if nursery is None else nursery.parent_task
    return False


def pause(root: trio.lowlevel.Task) -> None:
    """Let nothing from a task on run any more. What is to run in this very turn of Trio's still does."""
    _roots.setdefault(root, [])
    _run.Runner.reschedule = _hold_back  # type: ignore[method-assign] # that is the point


def resume(root: trio.lowlevel.Task) -> None:
    """Let all that would have run by now do so; nothing happens when it was not paused."""
    _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(_roots.pop(root, ()))
    if not _roots:
        _run.Runner.reschedule = _reschedule  # type: ignore[method-assign] # as before


def forget() -> None:
    """Nothing is paused: to be called when Trio has ended, whatever it ended of."""
    _roots.clear()
    _run.Runner.reschedule = _reschedule  # type: ignore[method-assign] # as before


def _hold_back(runner: _run.Runner, task: trio.lowlevel.Task, *outcome: Any) -> None:
    _reschedule(runner, task, *outcome)
    for root, held in _roots.items():
        if is_below(task, root):
            held.append(runner.runq.pop())  # the one that was just put at its end
            return
