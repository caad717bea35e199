"""A nursery for tasks that outlive who starts them."""

from __future__ import annotations

from typing import Never

import trio


class HeldNursery:
    """`run` owns the tasks: one that fails ends it, with all the others."""

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        """Where tasks are started; `None` while `run` does not run."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Let tasks be started, until cancelled; started when they can be."""
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.nursery = None
