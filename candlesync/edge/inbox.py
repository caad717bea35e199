"""What a client has sent and its application has not taken: nobody waits for one that takes nothing any more.

Hypercorn keeps ten messages of a client for each application, and waits for room for the next. One that has ended, or
is about to, makes none: the task that reads from the client then waited for ever, and so did the one that was to tell
the application that its client has left. The connection stayed, whatever its client did (tried: a WebSocket that is
closed with 4429 because its client sends too much).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.trio import task_group
from hypercorn.trio.task_group import TaskGroup

Put = Callable[[Any], Awaitable[None]]


class Inbox:
    """Of one application, which serves one request or one WebSocket."""

    def __init__(self, nursery: trio.Nursery, room: int, send: Callable[[Any], Awaitable[None]]) -> None:
        """``send`` takes what the application sends, and at the end `None`; ``room`` is for so many messages."""
        self._nursery = nursery
        self._send = send
        self._sending: set[trio.lowlevel.Task] = set()
        """The application's own tasks, while they send."""
        self._waiting: set[trio.CancelScope] = set()
        """Around each that waits for room."""
        self._is_over = False
        self._messages, self._taken = trio.open_memory_channel[Any](room)

    @property
    def receive(self) -> Callable[[], Awaitable[Any]]:
        """Gives the application its next message."""
        return self._taken.receive

    async def send(self, message: Any) -> None:
        """Take what the application sends."""
        if message is None:
            self._is_over = True
            for scope in self._waiting:
                scope.cancel()
        task = trio.lowlevel.current_task()
        self._sending.add(task)
        try:
            await self._send(message)
        finally:
            self._sending.discard(task)

    async def put(self, message: Any) -> None:
        """Give the application a message, as soon as there is room; or nothing, once it has ended."""
        try:
            self._messages.send_nowait(message)
        except trio.WouldBlock:
            if trio.lowlevel.current_task() in self._sending:
                # Its answer has ended the exchange, of which it is told: it makes no room for that while it waits here.
                self._nursery.start_soon(self._put_later, message)
            else:
                await self._put_later(message)

    async def _put_later(self, message: Any) -> None:
        if self._is_over:
            return
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await self._messages.send(message)
            finally:
                self._waiting.discard(scope)


class InboxTasks(TaskGroup):
    """The tasks of a connection, whose applications each have an `Inbox`."""

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Put:
        """Start an application; what gives it a message."""
        assert self._nursery is not None, "entered"  # noqa: S101 - for mypy; Hypercorn enters it first
        inbox = Inbox(self._nursery, config.max_app_queue_size, send)
        threads = (trio.to_thread.run_sync, trio.from_thread.run)
        self._nursery.start_soon(task_group._handle, app, config, scope, inbox.receive, inbox.send, *threads)
        return inbox.put
