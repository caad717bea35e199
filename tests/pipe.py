"""A client's connection that takes what the test lets it take, and what is read of it."""

from __future__ import annotations

import math

import trio


class Pipe:
    """A connection that takes as many bytes as the test says, and keeps them."""

    def __init__(self, room: float = math.inf) -> None:
        self.room = room
        self.got = b""
        self.rest = b""
        self.offers: list[bytes] = []
        self.is_gone = False
        self.is_silent = False
        self._is_there = True
        self._heard_at = math.inf
        """Until `fall_silent` the client talks all the time."""
        self._is_pushing = trio.Lock()
        self._widened = trio.Event()

    def widen(self, room: float) -> None:
        self.room += room
        self._widened.set()
        self._widened = trio.Event()

    @property
    def heard_at(self) -> float:
        return min(self._heard_at, trio.current_time())

    def fall_silent(self, *, is_noticed: bool = True) -> None:
        """``is_noticed``: it has been pinged since, and has not answered."""
        self._heard_at, self.is_silent, self._is_there = trio.current_time(), is_noticed, False

    def speak_again(self) -> None:
        self._heard_at, self.is_silent, self._is_there = math.inf, False, True

    async def is_there(self) -> bool:
        if not self._is_there and not self.is_silent:
            await trio.sleep(3)
            self.is_silent = True
        return self._is_there

    def offer(self, frames: bytes) -> int:
        self.offers.append(frames)
        if self.rest or self._is_pushing.locked():
            return 0
        taken = self._take(frames)
        if taken:
            self.rest = frames[taken:]
        return taken

    async def push(self, frames: bytes) -> bool:
        waited = self._is_pushing.locked()
        with trio.CancelScope(shield=True):  # what was begun is sent
            async with self._is_pushing:
                data, self.rest = self.rest + frames, b""
                while data := data[self._take(data) :]:
                    waited = True
                    await self._widened.wait()
        return not waited

    def _take(self, data: bytes) -> int:
        taken = int(min(self.room, len(data)))
        self.got += data[:taken]
        self.room -= taken
        return taken


def messages_of(data: bytes) -> tuple[list[bytes], int]:
    """The messages of a server's whole frames, and how many bytes they had."""
    messages, at = [], 0
    while len(data) - at >= 2:
        assert data[at] == 0x81, "each message is one text frame, and begins where the one before it ended"
        size, head = data[at + 1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if len(data) - at < head + size:
            break
        messages.append(data[at + head : at + head + size])
        at += head + size
    return messages, at
