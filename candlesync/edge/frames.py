"""What a client's frames may cost: those that are no message are counted, too.

A ping, a pong, an empty piece of a message, a setting of HTTP/2: each has 6 to 17 bytes and takes 10 to 40 µs here, and
none is ever a message that somebody would count. One client that sent nothing else had the whole process (2026-11: the
event loop stood still for 0.86 s at a time for pings, 0.43 s for empty pieces, 0.48 s for settings of HTTP/2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from wsproto.connection import Connection
from wsproto.events import Event, Message, Ping, Pong

PIECE = 2048
"""Bytes of a client that are dealt with in one turn. Of the smallest frames so many take 10 ms. What clients say is
mostly shorter: a request, a subscription."""

TOO_MANY = (4429, "too_many")
"""How a WebSocket ends whose client sends too many frames: as one that sends too many messages (``web.session``)."""


class Frames(Protocol):
    """How many frames that are no message a client may send."""

    def take(self) -> bool:
        """Whether one more may come."""
        ...


class Unlimited:
    """Any number."""

    def take(self) -> bool:
        """See `Frames.take`."""
        return True


class CountedConnection(Connection):
    """wsproto's side of a WebSocket, which stops reading when its client has sent too many such frames."""

    def __init__(self, frames: Frames, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type] # Hypercorn's, whatever they are
        self._frames = frames
        self.is_flooded = False
        """Whether too many came; nothing is read any more then."""

    def events(self) -> Iterator[Event]:  # type: ignore[override] # nobody sends into wsproto's generator
        """What the client's frames say."""
        if self.is_flooded:
            return
        for event in super().events():
            # A frame that comes in pieces is one; and the last of a message is the message, which others count.
            is_part = isinstance(event, Message) and event.frame_finished and not event.message_finished
            if (is_part or isinstance(event, Ping | Pong)) and not self._frames.take():
                self.is_flooded = True
                return
            yield event
