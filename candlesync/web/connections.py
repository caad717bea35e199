"""Which connections are let in: so many in all, and so many of one address; and what may come on them unasked.

What is asked on them is `access.Access`'s to judge. A trusted proxy's connections carry many clients, and count only in
all; it is told apart whom they are for when a request says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

import trio

from candlesync.core.address import Callers
from candlesync.core.allowance import Allowance, Places
from candlesync.web.refusal import EXPOSED, Refusal

PROBES = frozenset({"/health", "/ready", "/metrics"})
"""What operators ask stays usable whatever else comes, from their address or any other: it has an allowance of its own,
a tenth of the other, it needs no place among the requests of an address, and a connection that asks for it is let in
when there is no place left. An orchestrator would end a server that is full, and well."""
_BEYOND = 16
"""Connections for those, at once, when there is no place left; fewer where there are few places, and files."""
_COME_BACK = 5.0
"""Seconds after which a client that found no place may try again."""
_BURST = 20.0
"""Seconds' worth of frames that may come at once: as of messages."""


class Connections:
    """The connections of this process."""

    def __init__(self, most: int, most_each: float, callers: Callers, frame_rate: float = 0.0) -> None:
        """``frame_rate`` is how many frames a second that are no message may come on each; 0 is no limit."""
        self._frame_rate = frame_rate
        self._places = Places(most, most_each)
        self._callers = callers
        self._beyond = 0
        self.refused = Counter[str]()
        """How many were refused, by reason."""
        self.cut_off: Callable[[], int] = lambda: 0
        """Tells how many were cut off because their clients took nothing for too long; who listens knows it."""

    def enter_beyond(self, request: bytes) -> bool:
        """Take a place beyond the last for a connection that asks as operators do; whether it may have one."""
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        most = max(4, min(_BEYOND, self.most // 8))
        may_enter = method in {b"GET", b"HEAD"} and path in PROBES and self._beyond < most
        self._beyond += may_enter
        return may_enter

    def leave_beyond(self) -> None:
        """Give back what `enter_beyond` took."""
        self._beyond -= 1

    @property
    def most(self) -> int:
        """How many there may be."""
        return int(self._places.most)

    @property
    def open(self) -> int:
        """How many there are."""
        return self._places.taken

    def allow_only(self, most: int) -> None:
        """Let fewer in than was wanted: the process may not have as many files."""
        self._places.most = min(self._places.most, most)

    def enter(self, host: str | None) -> bytes:
        """Take a place for a connection of ``host``, which gives nothing; or the HTTP answer for who has none."""
        key = self._callers.of_connection(host)
        if self._places.is_full:
            self.refused["connections"] += 1
            return _http(Refusal("server_full", f"all {self.most} connections are taken", retry_after=_COME_BACK))
        if self._places.is_full_for(key):
            self.refused["connections_per_address"] += 1
            return _http(too_many_of(self._places.most_each))
        self._places.take(key)
        return b""

    def leave(self, host: str | None) -> None:
        """Give back what `enter` took."""
        self._places.leave(self._callers.of_connection(host))

    def new_frames(self) -> Frames:
        """What counts the frames of one client that are no message: pings, pongs, pieces, settings of HTTP/2."""
        return Frames(Allowance(self._frame_rate, max(1.0, self._frame_rate * _BURST)), self.refused)


class Frames:
    """How many frames that are no message a client may send. Its connection ends with the first that is too many:
    a frame cannot be refused."""

    __slots__ = ("_allowance", "_refused")

    def __init__(self, allowance: Allowance, refused: Counter[str]) -> None:
        self._allowance = allowance
        self._refused = refused

    def take(self) -> bool:
        """Whether one more may come."""
        if not self._allowance.take(trio.current_time()):
            return True
        self._refused["frame_rate"] += 1
        return False


def too_many_of(most: float) -> Refusal:
    """An address has as many connections, or requests under way, as it may have."""
    message = f"this address has {most:g} connections open, which is as many as one address may have"
    return Refusal("too_many", message, retry_after=_COME_BACK)


def _http(refusal: Refusal) -> bytes:
    """A refusal as a whole HTTP/1.1 answer, which ends its connection."""
    lines = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(refusal.body)}",
        f"Retry-After: {refusal.retry_after}",
        "Access-Control-Allow-Origin: *",
        f"Access-Control-Expose-Headers: {EXPOSED}",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + refusal.body
