"""Hearing what is announced: one thread that listens, and tells Trio what it heard, a batch at a time.

    subscribe ─▶ `Audience.listening` ─▶ hear … ─▶ lost: `Audience.deaf` ─▶ wait ─▶ subscribe (elsewhere, in a cluster)

The subscription is one pattern for all that a deployment announces, in the order in which the server sends it. A
server that says nothing is asked whether it is there: a connection that was cut without a word, or a server that hangs,
is noticed so even when there is nothing to hear.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
import structlog
import trio

from candlesync.errors import StoreUnavailable
from candlesync.store.announcing import decode_announced
from candlesync.store.base import Audience
from candlesync.store.codec import Keys
from candlesync.store.reasons import KNOWN, NoAnswer, explain

_BATCH = 256
"""Messages told in one turn of Trio's: some ten milliseconds."""
_LEAST_PAUSE, _GREATEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to subscribe: it begins with the least, and doubles."""
_TURN = 0.2
"""Seconds after which the thread looks up from its socket, at most: whether it was cancelled."""
_ANSWER = 0.8
"""Seconds to connect in, and for an answer or the rest of a message: cancellation waits for it, too."""

_log = structlog.get_logger(__name__)

Places = Callable[[], Sequence[Mapping[str, Any]]]
"""What to tell redis-py of each server at which all can be heard."""


class Listener:
    """One node's ear; `run` once for each audience."""

    def __init__(self, keys: Keys, places: Places, patience: float, *, start: int = 0) -> None:
        """``start`` is the number of the place to try first.

        When nothing was heard for half of ``patience`` the server is asked, and when it says nothing for as long as
        ``patience`` (both in seconds) it is taken for lost.
        """
        self._keys = keys
        self._places = places
        self._patience = patience
        self._attempts = start
        # One thread, whatever becomes of it: the next attempt waits for one that hangs (on the resolver, say).
        self._limiter = trio.CapacityLimiter(1)
        self.unreadable = 0
        """Messages on our channels that were left out, because they could not be read."""

    async def run(self, audience: Audience) -> None:
        """Tell ``audience`` all, until cancelled; then within a second or so."""
        pause = _LEAST_PAUSE
        is_deaf = False
        while True:
            began = trio.current_time()
            places = self._places()
            subscription = Subscription(places[self._attempts % len(places)], self._keys.pattern, self._patience)
            try:
                await self._subscribe(subscription)
                if is_deaf:
                    _log.info("the store's announcements are heard again", store=subscription.name)
                is_deaf = False
                audience.listening()
                await trio.to_thread.run_sync(self._hear, subscription, audience, limiter=self._limiter)
            except StoreUnavailable as lost:
                self._attempts += 1
                if not is_deaf:
                    _log.warning("the store's announcements cannot be heard", reason=str(lost))
                    audience.deaf(str(lost))
                is_deaf = True
            finally:
                subscription.close()
            if trio.current_time() - began > 2 * _GREATEST_PAUSE:
                pause = _LEAST_PAUSE
            await trio.sleep(pause)
            pause = min(2 * pause, _GREATEST_PAUSE)

    async def _subscribe(self, subscription: Subscription) -> None:
        with trio.move_on_after(2 * _ANSWER):
            # Abandoned when given up: its socket's timeouts end it, but nothing ends the resolving of a name.
            await trio.to_thread.run_sync(subscription.open, abandon_on_cancel=True, limiter=self._limiter)
            return
        raise NoAnswer(f"the store at {subscription.name}: it cannot be reached in time")

    def _hear(self, subscription: Subscription, audience: Audience) -> None:
        """Runs in the thread; ends by raising."""
        while True:
            heard = subscription.take()
            trio.from_thread.check_cancelled()
            said = [self._understand(channel, message) for channel, message in heard]
            tellings = [tell for tell in said if tell is not None]
            if tellings:
                trio.from_thread.run_sync(self._tell, audience, tellings)

    def _tell(self, audience: Audience, tellings: list[Callable[[Audience], None]]) -> None:
        for tell in tellings:
            tell(audience)

    def _understand(self, channel: bytes, message: bytes) -> Callable[[Audience], None] | None:
        try:
            return decode_announced(self._keys, channel, message)
        except ValueError as error:
            if self.unreadable == 0:
                name = channel[:100].decode(errors="replace")
                _log.warning("what was announced cannot be read: left out", channel=name, reason=str(error))
            self.unreadable += 1
            return None


class Subscription:
    """A connection that hears one pattern. Blocking: for a worker thread of trio's.

    Raises `StoreUnavailable`; it is to be closed in any case. It is not redis-py's ``PubSub``, which subscribes again
    by itself when it has lost the server, and tells nobody.
    """

    def __init__(self, place: Mapping[str, Any], pattern: str, patience: float) -> None:
        options = {**place, "socket_connect_timeout": _ANSWER, "socket_timeout": _ANSWER}
        make = options.pop("connection_class", redis.Connection)
        self.name = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._connection: redis.Connection = make(**options)
        self._pattern = pattern
        self._patience = patience
        self._heard = 0.0
        """When anything was heard last."""
        self._asked: float | None = None
        """When the server was asked whether it is there, if nothing was heard since."""
        self._handover = threading.Lock()
        self._is_opening = False
        """Whether the connection is that of the thread in `open`, which alone touches it then. redis-py's is not made
        for two: closed in the middle of its handshake it may fail in a way that leaves its socket open (seen)."""
        self._is_closed = False

    def open(self) -> None:
        """Subscribe; returns when the server has confirmed it, or when this was closed meanwhile."""
        with self._handover:
            if self._is_closed:
                return
            self._is_opening = True
        is_open = False
        try:
            self._subscribe()
            is_open = True
        finally:
            # Whatever happened, the connection is either handed over or closed.
            with self._handover:
                self._is_opening = False
                if self._is_closed or not is_open:
                    self._connection.disconnect()

    def take(self) -> list[tuple[bytes, bytes]]:
        """What is there by now, each with its channel; waits a moment when there is nothing."""
        try:
            return self._take()
        except KNOWN as error:
            raise explain(error, self.name) from error

    def close(self) -> None:
        """Close the connection. One that a thread is still opening is closed by that thread, when it has an answer or
        has waited for one long enough."""
        with self._handover:
            self._is_closed = True
            if not self._is_opening:
                self._connection.disconnect()

    def _subscribe(self) -> None:
        try:
            self._connection.connect()
            self._connection.send_command("PSUBSCRIBE", self._pattern, check_health=False)
            answer = self._connection.read_response(disable_decoding=True)
            if not (isinstance(answer, list) and answer[:1] == [b"psubscribe"]):
                raise NoAnswer(f"the store at {self.name} answered a subscription with {answer!r:.100}")
        except KNOWN as error:
            raise explain(error, self.name) from error
        self._heard = time.monotonic()

    def _take(self) -> list[tuple[bytes, bytes]]:
        messages: list[tuple[bytes, bytes]] = []
        if not self._connection.can_read(min(_TURN, self._patience / 4)):
            self._look_after()
            return messages
        while True:
            match self._connection.read_response(disable_decoding=True):
                case [b"pmessage", _, bytes(channel), bytes(message)]:
                    messages.append((channel, message))
            if len(messages) == _BATCH or not self._connection.can_read(0):
                break
        self._heard, self._asked = time.monotonic(), None
        return messages

    def _look_after(self) -> None:
        """Ask the server whether it is there when it was silent for long; not to be there is to be lost.

        What counts is the time since it was asked, not since it was heard: this process may have been stopped.
        """
        now = time.monotonic()
        if self._asked is not None and now - self._asked > self._patience / 2:
            raise NoAnswer(f"the store at {self.name}: it has been silent for {now - self._heard:.1f} s")
        if self._asked is None and now - self._heard > self._patience / 2:
            self._connection.send_command("PING", check_health=False)
            self._asked = now
