"""What waits for an application, in virtual time."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.edge.inbox import Inbox


async def test_nobody_waits_for_an_application_that_has_ended(autojump_clock: MockClock) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            inbox = Inbox(nursery, 2, send)
            for number in range(4):
                nursery.start_soon(inbox.put, number)
            await wait_all_tasks_blocked()
            assert await inbox.receive() in range(4)
            await wait_all_tasks_blocked()
            assert len(inbox._waiting) == 1, "one waits for room"
            await inbox.send(None)
            await inbox.put("late")
    assert sent == [None]


async def test_who_answers_does_not_wait_for_itself(autojump_clock: MockClock) -> None:
    """The end of an answer is told to the application by the task that answers, while nothing is taken."""

    async def send(message: Any) -> None:
        assert message == "answer"
        await inbox.put("that was all")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            inbox = Inbox(nursery, 1, send)
            await inbox.put("a body")
            await inbox.send("answer")
            assert [await inbox.receive(), await inbox.receive()] == ["a body", "that was all"]
