"""What is written to one socket in one turn of the loop, in one write.

A socket that follows fifty series would cost fifty writes when they all change at once, at a minute's end above all,
and a write is nearly all that a message costs. So such a socket's frames are kept until every task that can run now has
run, which is some microseconds, and go out together.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from candlesync.core.wire import BATCH
from candlesync.hub import Line


class Turn:
    """The bundles that are to go out when this turn of the loop is over."""

    def __init__(self) -> None:
        self._due: list[Bundle] = []
        self._asleep = trio.lowlevel.ParkingLot()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send them, turn by turn, until cancelled. While this does not run, nothing is kept for a turn's end."""
        task_status.started()
        while True:
            # Whoever is woken by the first of a turn runs when all who can run now have run.
            await self._asleep.park()
            self._send()

    def mark(self, bundle: Bundle) -> None:
        """Have a bundle sent at the end of this turn. Never waits."""
        self._due.append(bundle)
        if len(self._due) == 1 and not self._asleep.unpark():
            self._send()

    def _send(self) -> None:
        due, self._due = self._due, []
        for bundle in due:
            bundle.flush()


class Bundle:
    """A `Line` that sends what it is offered at the end of the turn.

    Invariants: frames leave in the order in which they came, those that were offered before those that are pushed
    later; what was taken goes out as long as the line below sends anything; at most a `BATCH` is kept.
    """

    def __init__(self, line: Line, turn: Turn, on_behind: Callable[[], None]) -> None:
        """``on_behind`` is called when the line below did not take all: somebody who can wait has to `push`, with
        nothing or more. It must not wait."""
        self._line = line
        self._turn = turn
        self._on_behind = on_behind
        self._frames: list[bytes] = []
        self._size = 0

    @property
    def is_gone(self) -> bool:
        """See `Line.is_gone`."""
        return self._line.is_gone

    def offer(self, frames: bytes) -> int:
        """Take all of the frames, or none, as `Line.offer`; none while the client is behind and enough is kept."""
        if self._size + len(frames) > BATCH:
            self.flush()
            if self._frames:
                return 0
        self._frames.append(frames)
        self._size += len(frames)
        if len(self._frames) == 1:
            self._turn.mark(self)
        return len(frames)

    async def push(self, frames: bytes) -> bool:
        """Send what was taken and then these frames, as `Line.push`."""
        return await self._line.push(b"".join((*self._take(), frames)))

    def flush(self) -> None:
        """Write what was taken, or call ``on_behind``. Never waits."""
        if not self._frames:
            return
        frames = b"".join(self._frames)
        taken = self._line.offer(frames)
        if taken:
            self._take()  # the rest of a part goes out before anything else
        if taken < len(frames):
            self._on_behind()

    def _take(self) -> list[bytes]:
        frames, self._frames, self._size = self._frames, [], 0
        return frames
