"""One connection to the market streams: what its client asks for is done in order, and its streams are kept going."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import trio

from candlesync.core.allowance import Pace
from candlesync.core.candle import Series
from candlesync.core.wire import BATCH
from candlesync.doors.binance.departures import Departures, Key
from candlesync.doors.binance.errors import refusal_of
from candlesync.doors.binance.places import Standing
from candlesync.doors.binance.receipt import Receipt
from candlesync.doors.binance.requests import (
    MOST_STREAMS,
    GetCombined,
    ListSubscriptions,
    MessageRefusal,
    Request,
    SetCombined,
    Subscribe,
    Unsubscribe,
    error,
    read_request,
    result,
    stream_of,
    too_many_streams,
)
from candlesync.doors.binance.shared_departures import SharedDepartures
from candlesync.doors.binance.stream import Missed, Stream, Texts
from candlesync.errors import CandlesyncError
from candlesync.hub import HeardLine, Line, Subscriber
from candlesync.supervisor import Supervisor
from candlesync.web.base import Channel, Closing, Session

MISSED = Closing(4410, "too_old: closed candles were missed that are no longer held; load them over REST", "too_old")
"""As on the other sockets (design, section 3). Rather the end of the connection than a candle left out."""
TOO_FAST = Closing(1008, "Too many requests", "too_many")
"""What recorded connections to Binance ended with."""

_BURST = 2.0
"""Seconds of which a client's messages may arrive together. Pings and pongs, which Binance counts too, are the server's
business and not seen here."""
_WAITING = 128 * 1024
"""Characters of the messages that may wait while one is being done: a series takes 10 seconds at most to start, and the
names of 1024 streams are some 25 KiB."""

_ASKED = 4
"""Connections that are asked whether their clients are there, when one comes that may be one of these: there may be
hundreds of a program, and those that were heard of last are there."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all sessions work with."""

    supervisor: Supervisor
    departures: Departures
    texts: Texts
    message_rate: float
    """Messages a second that a client may send ("WebSocket Limits")."""
    present: dict[Key, dict[StreamSession, Stream]] = field(default_factory=dict)
    """The streams that are being sent, by whose they are."""
    shared: SharedDepartures | None = None
    """With a store that several nodes share."""


class StreamSession(Session):
    """One open connection."""

    _enough = TOO_FAST

    def __init__(self, channel: Channel, means: Means, caller: tuple[str, bytes], *, combined: bool) -> None:
        """``caller`` is the client's address, as the limits count it, and its program; see `Key`."""
        super().__init__(channel)
        self._client = channel.line
        self.pace = Pace(means.message_rate, _BURST * means.message_rate)
        self._means = means
        self._caller = caller
        self._combined = combined
        self._streams: dict[Series, Stream] = {}
        self._by_subscriber: dict[Subscriber, Stream] = {}
        self._receipts: dict[Stream, Receipt] = {}
        self._standings: dict[Stream, Standing] = {}
        """With a shared store."""
        self._asked: deque[str] = deque()
        """Messages that are not done yet, in the order in which they came."""
        self._is_answering = False

    @property
    def stream_count(self) -> int:
        """How many streams it has."""
        return len(self._streams)

    async def begin(self, series: Iterable[Series]) -> None:
        """Follow what the URL asks for, all or nothing; raises what `Supervisor.ensure` raises."""
        await self._take_over(await self._start(series))

    # --- what the client says

    async def _hear(self, message: str, nursery: trio.Nursery, *, is_too_fast: bool) -> None:
        if is_too_fast or sum(map(len, self._asked)) + len(message) > _WAITING:
            self.close(TOO_FAST)
            await trio.lowlevel.checkpoint()
            return
        # Done one after the other, but not by the task that reads: how fast messages come is judged as they come.
        self._asked.append(message)
        if not self._is_answering:
            self._is_answering = True
            nursery.start_soon(self._answer)

    async def _answer(self) -> None:
        """Do and answer all that was asked. Started anew for what comes after that."""
        while self._asked:
            try:
                await self._do(read_request(self._asked.popleft()))
            except MessageRefusal as refused:
                await self.send([error(refused.refusal, refused.id)])
        self._is_answering = False

    async def _do(self, request: Request) -> None:
        match request:
            case Subscribe(request_id, series):
                await self._subscribe(request_id, series)
                return
            case Unsubscribe(_, series):
                for one in series:
                    self._drop(one)
                answer = result(request.id)
            case ListSubscriptions():
                answer = result(request.id, [stream_of(series) for series in self._streams])
            case SetCombined(_, combined):
                self._combined = combined
                answer = result(request.id)
            case GetCombined():
                answer = result(request.id, self._combined)
        await self.send([answer])

    async def _subscribe(self, request_id: int | str | None, series: Iterable[Series]) -> None:
        wanted = [one for one in series if one not in self._streams]
        try:
            if len(self._streams) + len(wanted) > MOST_STREAMS:
                raise too_many_streams()
            streams = await self._start(wanted)
        except CandlesyncError as refused:
            raise MessageRefusal(refusal_of(refused), request_id) from refused
        is_answered = False
        try:
            await self.send([result(request_id)])
            is_answered = True
        finally:
            if not is_answered:
                _end(streams)
        await self._take_over(streams)

    # --- the streams

    async def _start(self, series: Iterable[Series]) -> list[Stream]:
        """Begin streams, all or none; what is committed from then on is kept for them. Raises as `begin`."""
        streams: dict[Series, Stream] = {}
        refused: list[CandlesyncError] = []
        is_whole = False
        try:
            async with trio.open_nursery() as nursery:
                for one in series:
                    nursery.start_soon(self._start_one, one, streams, refused, nursery.cancel_scope.cancel)
            is_whole = not refused
        finally:
            if not is_whole:
                _end(streams.values())
        if refused:
            raise refused[0]
        return [streams[one] for one in series]

    async def _start_one(
        self,
        series: Series,
        streams: dict[Series, Stream],
        refused: list[CandlesyncError],
        give_up: Callable[[], None],
    ) -> None:
        try:
            topic = await self._means.supervisor.ensure(series)
        except CandlesyncError as reason:
            refused.append(reason)
            give_up()
        else:
            # Before anything else is waited for: a series that nobody has subscribed to may be let go.
            streams[series] = Stream(topic, self.outbox, self._means.texts)

    async def _take_over(self, streams: list[Stream]) -> None:
        """Have streams that were begun sent from now on, each from where one of this client's stopped, if one did.

        Its connection need not have ended for us: who is back after the network has died comes sooner than that shows.
        """
        departed: dict[Key, int | None] = {}
        is_asked = False
        try:
            silent = await self._silent(streams)
            if self._means.shared is not None:
                # The latest counts: where one is silent here, none is asked for there.
                missing = [self._key(stream) for stream in streams if not self._silent_receipts(stream, silent)]
                departed = await self._means.shared.take(missing)
            is_asked = True
        finally:
            if not is_asked:
                _end(streams)
        # No await from here on: a place that is taken is gone on from.
        now = trio.current_time()
        for stream in streams:
            key = self._key(stream)
            place = self._place_of_silent(stream, silent)
            if key in departed:
                self._means.departures.note_taken(key, departed[key], now)
                place = departed[key] if place is None else place
            elif place is None:
                place = self._means.departures.take(key, now)
            if place is not None:
                stream.go_on_from(place)
            self._join(stream)

    async def _silent(self, streams: Iterable[Stream]) -> set[StreamSession]:
        """The connections that may be this client's earlier ones, and whose client does not answer any more."""
        others = self._others(streams)
        silent = {other for other, client in others.items() if client.is_silent}
        # Who has just been heard of is there.
        now = trio.current_time()
        doubtful = {other: client for other, client in others.items() if client.heard_at < now - 1}
        if silent or not doubtful:
            return silent

        async def ask(other: StreamSession, client: HeardLine) -> None:
            if not await client.is_there():
                silent.add(other)

        async with trio.open_nursery() as nursery:
            for other in sorted(doubtful, key=lambda one: doubtful[one].heard_at)[:_ASKED]:
                nursery.start_soon(ask, other, doubtful[other])
        return silent

    def _others(self, streams: Iterable[Stream]) -> dict[StreamSession, HeardLine]:
        """The other connections on which the same client may have one of these streams, and nobody goes on from it."""
        now = trio.current_time()
        return {
            other: other._client
            for stream in streams
            for other, its in self._means.present.get(self._key(stream), {}).items()
            if other is not self and other._client is not None and other._receipts[its].given_at > now
        }

    def _place_of_silent(self, stream: Stream, silent: set[StreamSession]) -> int | None:
        """Where the same stream of a client that does not answer any more stopped: the earliest, and each once."""
        found = self._silent_receipts(stream, silent)
        if not found:
            return None
        place, receipt = min(found, key=lambda pair: pair[0])
        receipt.given_at = trio.current_time()
        return place

    def _silent_receipts(self, stream: Stream, silent: set[StreamSession]) -> list[tuple[int, Receipt]]:
        """The places of the same stream of clients that do not answer any more, and that nobody has gone on from."""
        now = trio.current_time()
        found: list[tuple[int, Receipt]] = []
        for other, its in self._means.present.get(self._key(stream), {}).items():
            receipt = other._receipts[its]
            if other in silent and other._client is not None and receipt.given_at > now:
                found.append((receipt.place(its.place, now, other._client.heard_at), receipt))
        return found

    def _join(self, stream: Stream) -> None:
        self._receipts[stream] = Receipt(stream.place, trio.current_time())
        self._streams[stream.series] = self._by_subscriber[stream.subscriber] = stream
        key = self._key(stream)
        self._means.present.setdefault(key, {})[self] = stream
        if self._means.shared is not None:
            self._standings[stream] = self._means.shared.join(key, stream.place)
        self.outbox.offer(stream.subscriber)

    def _drop(self, series: Series, place: int | None = None) -> None:
        """End a stream, if there is one; ``place``: where its client, who may come back, has everything up to."""
        stream = self._streams.pop(series, None)
        if stream is not None:
            del self._by_subscriber[stream.subscriber]
            del self._receipts[stream]
            key = self._key(stream)
            others = self._means.present[key]
            del others[self]
            if not others:
                del self._means.present[key]
            if self._means.shared is not None:
                self._means.shared.leave(self._standings.pop(stream), place)
            stream.end()

    def end(self) -> None:
        """Let go of the streams, and remember where they stopped."""
        now = trio.current_time()
        client = self._client
        silent_since = client.heard_at if client is not None and client.is_silent else None
        for series, stream in list(self._streams.items()):
            receipt = self._receipts[stream]
            place = None
            if client is None or client.heard_at >= receipt.given_at or receipt.given_at > now:
                place = receipt.place(stream.place, now, silent_since)
                self._means.departures.remember(self._key(stream), place, now)
            self._drop(series, place)

    def _note_place(self, stream: Stream, before: int) -> None:
        """A stream's place was another before, if it was."""
        if stream.place == before:
            return
        if self._client is not None:
            self._receipts[stream].move(before, self._client.heard_at, trio.current_time())
        if self._means.shared is not None:
            self._means.shared.places.move(self._standings[stream], stream.place)

    def _key(self, stream: Stream) -> Key:
        return Key(*self._caller, stream_of(stream.series))

    # --- what the client is sent

    async def _serve(self, subscribers: list[Subscriber]) -> None:
        due = self._due(subscribers)
        is_done = False
        while not is_done:
            batch = _Batch(due, BATCH if self._line is not None else 1)
            try:
                await self.send(batch)
            except Missed:
                self.close(MISSED)
                return
            if self._line is not None and self._line.is_gone:
                return  # a part of it may not have gone out: the place stays where it was
            # A line takes all of a batch or, cancelled before it, nothing; without one a batch is a single event. So
            # the place is exactly up to where the client was sent everything, whenever this is cancelled.
            for stream, place in batch.places:
                before, stream.place = stream.place, place
                if stream in self._receipts:  # and was not dropped meanwhile
                    self._note_place(stream, before)
            is_done = batch.is_last
        if self._line is not None:
            for stream in filter(None, map(self._by_subscriber.get, subscribers)):
                stream.subscriber.topic.park(stream.subscriber, _Parked(self, stream, self._line))

    def offer(self, stream: Stream, line: Line) -> tuple[int, int]:
        """See `Stream.offer`."""
        before = stream.place
        taken = stream.offer(line, combined=self._combined)
        self._note_place(stream, before)
        return taken

    def _due(self, subscribers: Iterable[Subscriber]) -> Iterator[tuple[Stream, int, bytes]]:
        """What the streams are to be sent, read as it is sent: nothing but places is kept for a client."""
        for subscriber in subscribers:
            stream = self._by_subscriber.get(subscriber)
            if stream is None:
                continue  # dropped since it was marked
            try:
                for place, event in stream.due(combined=self._combined):
                    if subscriber not in self._by_subscriber:
                        break  # dropped since, and that was answered
                    yield stream, place, event
            except Missed:
                self._drop(stream.series)  # nobody goes on with it: who comes back begins anew, and is not told again
                raise


class _Parked:
    """The line of a stream whose client has everything, as the hub knows it. What the hub offers is the same commit in
    the words of the client contract: here Binance's are written in their place."""

    __slots__ = ("_line", "_session", "_stream")

    def __init__(self, session: StreamSession, stream: Stream, line: Line) -> None:
        self._session = session
        self._stream = stream
        self._line = line

    def offer(self, frames: bytes) -> int:
        """See `Outlet.offer`."""
        taken, size = self._session.offer(self._stream, self._line)
        if taken == size:
            return len(frames)
        return 1 if taken else 0


class _Batch:
    """Some of what is due, taken when it is sent."""

    def __init__(self, due: Iterator[tuple[Stream, int, bytes]], most: int) -> None:
        """At least one event, if there is one, and no more once there are ``most`` bytes."""
        self._due = due
        self._most = most
        self.places: list[tuple[Stream, int]] = []
        """Where the streams are once it has been sent."""
        self.is_last = False

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for stream, place, event in self._due:
            self.places.append((stream, place))
            if event:
                yield event
            size += len(event)
            if size >= self._most:
                return
        self.is_last = True


def _end(streams: Iterable[Stream]) -> None:
    for stream in streams:
        stream.end()
