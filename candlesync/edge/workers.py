"""Workers of the ``hypercorn`` command that are replaced when they die, and that all may end in peace.

Hypercorn 0.18 ends the whole server when one of its workers was killed, and kills the others as soon as one of them
has ended (``hypercorn/run.py``). Its first process runs none of the application, but with ``use_reloader``: then it
imports it, to learn which files to watch. ``hypercorn.toml`` asks for that, so that `replace_dead` takes effect there.
Nothing is watched, and nothing reloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

import hypercorn.run
from hypercorn.config import Config

SOON = 10.0
"""A worker that fails within so many seconds of its start would fail again: it ends the server."""
_MARGIN = 5.0
"""Seconds beyond the grace time that a worker has to end by itself."""
_PAUSE = 0.5
"""Seconds before a worker that was killed as soon as it started is replaced."""

Populate = Callable[..., None]
Join = Callable[[list[BaseProcess]], int]


class Workers:
    """The workers of one server, in its first process."""

    def __init__(self, populate: Populate, join_exited: Join, report: Callable[[int, float], None]) -> None:
        """``populate`` and ``join_exited`` are Hypercorn's own."""
        self._report = report
        self._populate = populate
        self._join_exited = join_exited
        self._started: dict[int | None, float] = {}
        self._shutdown: Event | None = None
        self._patience = 0.0

    def populate(
        self, processes: list[BaseProcess], config: Config, worker: object, sockets: object, shutdown: Event, *rest: Any
    ) -> None:
        """Start as many workers as are missing."""
        self._shutdown, self._patience = shutdown, config.graceful_timeout + _MARGIN
        self._populate(processes, config, worker, sockets, shutdown, *rest)
        known, now = self._started, time.monotonic()
        self._started = {process.pid: known.get(process.pid, now) for process in processes}

    def join_exited(self, processes: list[BaseProcess]) -> int:
        """Take the workers that have ended off the list; a status other than 0 ends the server."""
        if self._shutdown is not None and self._shutdown.is_set():
            until = time.monotonic() + self._patience
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
        status = 0
        for process in [process for process in processes if process.exitcode is not None]:
            age = time.monotonic() - self._started.get(process.pid, 0.0)
            ended = self._join_exited([process])
            processes.remove(process)
            was_killed = ended < 0
            if ended == 0:
                continue
            if was_killed or age > SOON:
                self._report(ended, age)
                time.sleep(_PAUSE if age < _PAUSE else 0)
            else:
                status = status or ended
        return status


def replace_dead(report: Callable[[int, float], None]) -> None:
    """Make this process, if it is the first one of the ``hypercorn`` command, replace workers that die.

    ``report`` is told of each: its exit status (negative: the signal that killed it), and for how many seconds it ran.
    """
    seam: dict[str, Any] = vars(hypercorn.run)
    if isinstance(getattr(seam["_populate"], "__self__", None), Workers):
        return
    workers = Workers(seam["_populate"], seam["_join_exited"], report)
    seam["_populate"], seam["_join_exited"] = workers.populate, workers.join_exited
    seam["files_to_watch"], seam["check_for_updates"] = dict, _never


def _never(_files: object) -> bool:
    return False
