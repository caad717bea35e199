"""The sockets of the client contract: one series, or many.

On a connection that takes frames (a `Line`) the writer parks each subscriber that has everything: from then on the hub
writes to the line itself, and the socket costs no more than its reader, until something is in the way.
"""

from __future__ import annotations

from abc import abstractmethod

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.sync import State
from candlesync.errors import CandlesyncError
from candlesync.hub import Subscriber, Topic
from candlesync.supervisor import Supervisor
from candlesync.web.base import Channel, Closing, Session
from candlesync.web.bundle import Bundle, Turn
from candlesync.web.parameters import Start, read_series, read_start
from candlesync.web.refusal import Refusal, refusal_of
from candlesync.web.subscription import begin, follow, pull, pull_state

_encode = msgspec.json.Encoder().encode

_LARGEST = 2**53
"""Beyond this, JavaScript's numbers are no whole numbers any more; Python's may have millions of digits."""

_TOO_FAST = Refusal("too_many", "messages come too fast: this one was not acted on")


class CandleSession(Session):
    """A socket of the client contract (design, section 3): what is said on it is a JSON object with an ``op``."""

    async def _serve(self, subscribers: list[Subscriber]) -> None:
        for subscriber in subscribers:
            await self._serve_one(subscriber)

    async def _hear(self, message: str, nursery: trio.Nursery, *, is_too_fast: bool) -> None:
        value: object = None
        try:
            value = read_object(message)
            if is_too_fast:
                await self.send([error_message(_TOO_FAST, value)])
            else:
                await self._understand(value, nursery)
        except Refusal as refusal:
            await self.send([error_message(refusal, value)])

    def _park(self, subscriber: Subscriber) -> None:
        if self._line is not None:
            subscriber.topic.park(subscriber, self._line)

    @abstractmethod
    async def _serve_one(self, subscriber: Subscriber) -> None:
        """Send a subscriber what it has not been sent."""

    @abstractmethod
    async def _understand(self, message: dict[str, object], nursery: trio.Nursery) -> None:
        """Do what the client's message says; may raise `Refusal`."""


class OneSeries(CandleSession):
    """``/ws/candles/{symbol}``: one candle a message."""

    def __init__(self, channel: Channel, topic: Topic, start: Start) -> None:
        super().__init__(channel)
        self._start: Start | None = start
        self._subscriber = topic.subscribe(self.outbox)
        self.outbox.offer(self._subscriber)

    async def _serve_one(self, subscriber: Subscriber) -> None:
        start, self._start = self._start, None
        try:
            messages = pull(subscriber) if start is None else begin(subscriber, start)
        except Refusal as refusal:
            self.close(Closing(refusal.close_code, refusal.code))
            return
        await self.send(messages)
        self._park(subscriber)

    async def _understand(self, message: dict[str, object], nursery: trio.Nursery) -> None:  # noqa: ARG002 - see base
        if message.get("op") != "ping":
            raise Refusal("bad_message", 'only {"op":"ping"} is understood here; /ws/candles takes subscriptions')
        await self.send([_answer("pong", message)])

    def end(self) -> None:
        """See `Session.end`."""
        self._subscriber.topic.unsubscribe(self._subscriber)


class ManySeries(CandleSession):
    """``/ws/candles``: many series on one socket, subscribed by message."""

    def __init__(self, channel: Channel, turn: Turn, supervisor: Supervisor, max_subscriptions: int) -> None:
        super().__init__(channel)
        if self._line is not None:
            self._line = Bundle(self._line, turn, self._fall_behind)
        self._supervisor = supervisor
        self._max_subscriptions = max_subscriptions
        self._starting: dict[Series, trio.CancelScope] = {}
        self._answers_due = 0
        """Tasks that start a subscription and answer."""
        self._starts: dict[Subscriber, Start] = {}
        self._subscribers: dict[Series, Subscriber] = {}

    async def _serve_one(self, subscriber: Subscriber) -> None:
        series = subscriber.topic.series
        if self._subscribers.get(series) is not subscriber:
            return  # ended since it was marked
        try:
            messages = self._messages(subscriber)
        except Refusal as refusal:
            self._drop(series)
            messages = [error_message(refusal, _name(series))]
        await self.send(messages)
        self._park(subscriber)

    def _messages(self, subscriber: Subscriber) -> list[bytes]:
        """What a subscriber is to be sent now. Its state comes first, but for the candles that made it live."""
        start = self._starts.pop(subscriber, None)
        candles = pull(subscriber) if start is None else begin(subscriber, start)
        state = pull_state(subscriber)
        if state is None:
            return candles
        message = _encode({"op": "state", **_name(subscriber.topic.series), "state": state.value})
        return [*candles, message] if state is State.LIVE and start is None else [message, *candles]

    async def _understand(self, message: dict[str, object], nursery: trio.Nursery) -> None:
        match message.get("op"):
            case "ping":
                await self.send([_answer("pong", message)])
            case "subscribe" | "unsubscribe" as op:
                series = _read_series(message)
                message |= _name(series)  # an error names the series as the candles do, however the client wrote it
                if op == "subscribe":
                    self._subscribe(message, series, nursery)
                elif self._drop(series):
                    await self.send([_answer("unsubscribed", message, series)])
                else:
                    raise Refusal("not_subscribed", f"{series} is not subscribed on this socket")
            case _:
                raise Refusal("bad_message", "op must be subscribe, unsubscribe or ping")

    def _subscribe(self, message: dict[str, object], series: Series, nursery: trio.Nursery) -> None:
        start = _read_start(message)
        # Each start answers its message, however late, and the client may not be reading.
        if self._answers_due >= 2 * self._max_subscriptions:
            raise Refusal("too_many", "too many subscriptions have not been answered yet")
        known = self._subscribers.keys() | self._starting.keys()
        if series not in known and len(known) >= self._max_subscriptions:
            raise Refusal("too_many", f"a socket may have {self._max_subscriptions} subscriptions at most")
        # Again for the same series: starts it anew.
        self._drop(series)
        scope = self._starting[series] = trio.CancelScope()
        self._answers_due += 1
        # A series may have to be started first, for which the other messages of this socket do not wait.
        nursery.start_soon(self._start, message, series, start, scope)

    async def _start(self, message: dict[str, object], series: Series, start: Start, scope: trio.CancelScope) -> None:
        subscriber: Subscriber | None = None
        try:
            with scope:
                topic = await follow(self._supervisor, series, start)
                # Before anything else is waited for: a series that nobody has subscribed to may be let go.
                subscriber = topic.subscribe(self.outbox)
            # Outside of the scope: what is being sent is not cut short because the subscription is dropped.
            if subscriber is None:
                await self._tell_dropped(message, series)
                return
            await self.send([_answer("subscribed", message, series)])
            if self._starting.get(series) is scope:  # not dropped meanwhile
                self._subscribers[series], self._starts[subscriber] = subscriber, start
                self.outbox.offer(subscriber)
        except CandlesyncError as error:
            await self.send([error_message(refusal_of(error), message)])
        finally:
            if subscriber is not None and self._subscribers.get(series) is not subscriber:
                subscriber.topic.unsubscribe(subscriber)
            if self._starting.get(series) is scope:
                del self._starting[series]
            self._answers_due -= 1

    async def _tell_dropped(self, message: dict[str, object], series: Series) -> None:
        """Answer a subscription that was dropped before it began: every message that asks has an answer."""
        if series in self._starting or series in self._subscribers:
            await self.send([_answer("subscribed", message, series)])  # it goes on in the one that started it anew
        else:
            refusal = Refusal("not_subscribed", f"{series} was unsubscribed before it began")
            await self.send([error_message(refusal, message)])

    def _drop(self, series: Series) -> bool:
        """End the subscription of a series, or its start; whether there was one."""
        scope = self._starting.pop(series, None)
        if scope is not None:
            scope.cancel()
        subscriber = self._subscribers.pop(series, None)
        if subscriber is not None:
            self._starts.pop(subscriber, None)
            subscriber.topic.unsubscribe(subscriber)
        return scope is not None or subscriber is not None

    def end(self) -> None:
        """See `Session.end`."""
        for series in [*self._subscribers, *self._starting]:
            self._drop(series)


def read_object(message: str) -> dict[str, object]:
    """A client's message as a JSON object; raises `Refusal` ``bad_message``."""
    try:
        value = msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError):
        raise Refusal("bad_message", 'not JSON; messages look like {"op":"ping"}') from None
    if not isinstance(value, dict):
        raise Refusal("bad_message", 'not a JSON object; messages look like {"op":"ping"}')
    return value


def error_message(refusal: Refusal, about: object = None) -> bytes:
    """``{"op":"error",…}``, with the ``id``, symbol and interval of the message that it is about, if it has them."""
    details = {}
    if isinstance(about, dict):
        details = {name: about[name] for name in ("symbol", "interval", "id") if _is_short(about.get(name))}
    return _encode({"op": "error", "code": refusal.code, "message": refusal.message, **details})


def _answer(op: str, message: dict[str, object], series: Series | None = None) -> bytes:
    answer: dict[str, object] = {"op": op}
    if series is not None:
        answer |= _name(series)
    if _is_short(message.get("id")):
        answer["id"] = message["id"]
    return _encode(answer)


def _is_short(value: object) -> bool:
    """Whether a client's own value may be sent back to it: an id of any size would be an amplifier."""
    if isinstance(value, str):
        return len(value) <= 100
    return isinstance(value, int | float) and abs(value) <= _LARGEST


def _name(series: Series) -> dict[str, str]:
    return {"symbol": series.symbol, "interval": str(series.interval)}


def _read_series(message: dict[str, object]) -> Series:
    symbol, interval = message.get("symbol"), message.get("interval", "1m")
    if not isinstance(symbol, str) or not isinstance(interval, str):
        raise Refusal("bad_parameter", "symbol and interval must be texts")
    return read_series(symbol, interval)


def _read_start(message: dict[str, object]) -> Start:
    given: dict[str, list[str]] = {}
    for name in ("replay", "since", "position"):
        value = message.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
        if not (isinstance(value, str) if name == "position" else is_number):
            wanted = "a text" if name == "position" else "a whole number"
            raise Refusal("bad_parameter", f"{name} must be {wanted}")
        given[name] = [str(value)]
    return read_start(given)
