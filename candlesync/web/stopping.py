"""The end of a server that goes down: told once, to all who have to do something about it."""

from __future__ import annotations

from collections.abc import Callable


class Stopping:
    """Whether the server goes down. Open sockets are told by a call, not each by a task that waits for it."""

    def __init__(self) -> None:
        self._is_set = False
        self._to_tell: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether it goes down."""
        return self._is_set

    def on_set(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when it goes down. It must not wait."""
        self._to_tell.append(tell)

    def set(self) -> None:
        """Go down. Never waits; the first call counts."""
        if not self._is_set:
            self._is_set = True
            for tell in self._to_tell:
                tell()
