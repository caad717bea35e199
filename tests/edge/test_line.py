"""A client's way out: frames go out whole and in order, and in bounded time, whatever the socket takes of them."""

from __future__ import annotations

import math
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.core import wire
from candlesync.edge.line import SEND_BUFFER, Line


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test configures holds for all lines: not for those of the tests after it."""
    for name, value in {"timeout": 30.0, "slowest": 1024.0, "send_buffer": SEND_BUFFER, "_end": math.inf}.items():
        monkeypatch.setattr(Line, name, value)


class Narrow(Line):
    """A line over a real socket, which takes as many bytes as the test lets it take, and blocks in between."""

    def __init__(self, stream: trio.SocketStream, on_gone: Callable[[], None], room: float = 0) -> None:
        super().__init__(stream, on_gone)
        self._room = room
        self._widened = trio.Event()

    def widen(self, room: float) -> None:
        """Let the socket take so many bytes more."""
        self._room += room
        self._widened.set()
        self._widened = trio.Event()

    def _write(self, descriptor: int, data: bytes | memoryview) -> int:
        count = int(min(self._room, len(data)))
        if count == 0:
            return 0
        taken = super()._write(descriptor, data[:count])
        self._room -= taken
        return taken

    async def _within(self, deadline: float, wait: Callable[..., Awaitable[object]], *arguments: object) -> bool:
        if wait is trio.lowlevel.wait_writable and not self._room:
            wait, arguments = self._widened.wait, ()
        return await super()._within(deadline, wait, *arguments)


class Ends:
    """Both ends of a connection: our line, and the client's socket."""

    def __init__(self, kind: type[Line] = Line, *, buffer: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        if buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        theirs.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.theirs = theirs
        self.gone = 0
        self.line = kind(self.stream, self._note)
        self.received = b""

    def _note(self) -> None:
        self.gone += 1

    def read(self) -> bytes:
        """All that has come, from the beginning."""
        with suppress(BlockingIOError):
            while data := self.theirs.recv(1 << 16):
                self.received += data
        return self.received

    def read_some(self, size: int) -> int:
        """How many bytes were there, of so many."""
        with suppress(BlockingIOError):
            data = self.theirs.recv(size)
            self.received += data
            return len(data)
        return 0

    def fill(self) -> int:
        """Make the socket full of noughts, as a client does that reads nothing."""
        size = 0
        for block in (1 << 16, 64, 1):
            with suppress(BlockingIOError):
                while True:
                    size += os.write(self.stream.socket.fileno(), bytes(block))
        return size

    def close(self) -> None:
        self.stream.socket.close()
        self.theirs.close()


@contextmanager
def ends(kind: type[Line] = Line, *, buffer: int | None = None) -> Iterator[Ends]:
    both = Ends(kind, buffer=buffer)
    try:
        yield both
    finally:
        both.close()


def narrow(both: Ends) -> Narrow:
    assert isinstance(both.line, Narrow)
    return both.line


FIRST, SECOND, THIRD = (wire.frame(text * 10) for text in (b"first", b"second", b"third"))


# --- whole and in order


async def test_what_the_socket_takes_is_sent_at_once() -> None:
    with ends() as both:
        assert both.line.offer(FIRST) == len(FIRST)
        assert await both.line.push(SECOND)
        assert await both.line.send(THIRD)
        assert both.read() == FIRST + SECOND + THIRD
        assert both.gone == 0


@pytest.mark.parametrize("taken", range(len(FIRST) + len(SECOND)))
async def test_an_offer_that_was_taken_in_part_goes_out_whole_before_anything_else(taken: int) -> None:
    """At every byte of it."""
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(taken)
        assert line.offer(FIRST + SECOND) == taken
        assert both.read() == (FIRST + SECOND)[:taken]
        if taken:
            assert line.offer(THIRD) == 0, "no frame inside another"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.send, THIRD)
            await trio.testing.wait_all_tasks_blocked()
            assert line.offer(FIRST) == 0
            line.widen(math.inf)
        assert both.read() == (FIRST + SECOND + THIRD if taken else THIRD)
        assert line.offer(FIRST) == len(FIRST), "and it takes offers again"


@pytest.mark.parametrize("taken", range(1, len(FIRST)))
async def test_pushing_nothing_sends_what_is_left(taken: int) -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(taken)
        line.offer(FIRST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.push, b"")
            for _ in range(len(FIRST) - taken):
                await trio.testing.wait_all_tasks_blocked()
                line.widen(1)
        assert both.read() == FIRST


async def test_pushing_nothing_when_nothing_is_left_waits_for_nothing() -> None:
    with ends(Narrow) as both:
        assert await both.line.push(b"")
        assert both.read() == b""


@pytest.mark.parametrize("step", [1, 2, 7, 64])
async def test_those_who_wait_are_served_in_turn(step: int) -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        async with trio.open_nursery() as nursery:
            for data in (FIRST, SECOND, THIRD, FIRST):
                nursery.start_soon(line.send, data)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(0, len(FIRST + SECOND + THIRD + FIRST), step):
                assert line.offer(SECOND) == 0
                line.widen(step)
                await trio.testing.wait_all_tasks_blocked()
        assert both.read() == FIRST + SECOND + THIRD + FIRST


@pytest.mark.parametrize("room", [1, 1000])
async def test_what_was_sent_is_not_held(room: int) -> None:
    """The connection may be idle from then on, and the answer long."""
    with ends(Narrow) as both:
        line = narrow(both)
        data = bytes(bytearray(100_000))
        holders = sys.getrefcount(data)
        line.widen(room)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.send, data)
            await trio.testing.wait_all_tasks_blocked()
            assert sys.getrefcount(data) > holders
            while len(both.read()) < len(data):
                line.widen(math.inf)
                await trio.testing.wait_all_tasks_blocked()
        del nursery
        assert sys.getrefcount(data) == holders


async def test_whether_it_was_done_at_once_is_told() -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        done: list[bool] = []

        async def push() -> None:
            done.append(await line.push(FIRST))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await trio.testing.wait_all_tasks_blocked()
            line.widen(math.inf)
        assert done == [False]
        await push()
        assert done == [False, True]


async def test_a_cancelled_send_is_sent_whole() -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(3)
        async with trio.open_nursery() as nursery:
            for data in (FIRST, SECOND):
                nursery.start_soon(line.send, data)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                line.widen(math.inf)
        assert both.read() == FIRST + SECOND


async def test_a_task_that_is_cancelled_already_still_sends_what_was_made() -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        with trio.CancelScope() as scope:
            scope.cancel()
            line.widen(math.inf)
            await line.send(FIRST)
        assert both.read() == FIRST


async def test_once_shut_only_what_was_begun_and_what_is_sent_goes_out() -> None:
    close = b"\x88\x02\x03\xe8"
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(5)
        line.offer(FIRST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.push, SECOND)
            await trio.testing.wait_all_tasks_blocked()
            line.shut()
            nursery.start_soon(line.send, close)
            await trio.testing.wait_all_tasks_blocked()
            assert line.offer(THIRD) == 0
            assert await line.push(THIRD)
            line.widen(math.inf)
        assert line.offer(THIRD) == 0
        assert await line.push(THIRD)
        assert both.read() == FIRST + SECOND + close


# --- any sequence at all

FRAMES = st.binary(min_size=0, max_size=300).map(wire.frame)
STEPS = st.one_of(
    st.tuples(st.just("offer"), FRAMES),
    st.tuples(st.just("push"), st.one_of(st.just(b""), FRAMES)),
    st.tuples(st.just("send"), FRAMES),
    st.tuples(st.just("widen"), st.integers(1, 400)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("shut"), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_what_arrives_is_what_was_taken_whole_and_in_order(steps: list[tuple[str, object]]) -> None:
    async def main() -> None:
        with ends(Narrow) as both:
            line = narrow(both)
            expected: list[bytes] = []
            scopes: list[trio.CancelScope] = []
            is_shut = False

            async def put(way: Callable[[bytes], Awaitable[object]], data: bytes) -> None:
                with scopes[-1]:
                    await way(data)

            async with trio.open_nursery() as nursery:
                for kind, value in steps:
                    if kind == "offer":
                        assert isinstance(value, bytes)
                        if taken := line.offer(value):
                            assert not is_shut
                            assert taken <= len(value)
                            expected.append(value)
                    elif kind in {"push", "send"}:
                        assert isinstance(value, bytes)
                        if kind == "send" or not is_shut:
                            expected.append(value)
                        scopes.append(trio.CancelScope())
                        nursery.start_soon(put, line.push if kind == "push" else line.send, value)
                    elif kind == "widen":
                        assert isinstance(value, int)
                        line.widen(value)
                    elif kind == "cancel":
                        assert isinstance(value, int)
                        if scopes:
                            scopes[value % len(scopes)].cancel()
                    else:
                        line.shut()
                        is_shut = True
                    await trio.testing.wait_all_tasks_blocked()
                    assert b"".join(expected).startswith(both.read()), f"after {kind}"
                line.widen(math.inf)
            await line.send(b"")  # what an offer has left, if nobody has pushed it
            assert both.read() == b"".join(expected)
            assert both.gone == 0

    trio.run(main)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=5, max_size=40),
    ways=st.lists(st.sampled_from(["offer", "push", "send"]), min_size=40, max_size=40),
    reads=st.lists(st.integers(0, 5000), min_size=40, max_size=40),
)
def test_the_same_with_the_buffers_of_the_kernel(sizes: list[int], ways: list[str], reads: list[int]) -> None:
    async def main() -> None:
        with ends(buffer=4096) as both:
            expected: list[bytes] = []
            async with trio.open_nursery() as nursery:
                for size, way, read in zip(sizes, ways, reads, strict=False):
                    data = wire.frame(bytes([len(expected) % 251]) * size)
                    if way == "offer":
                        if both.line.offer(data):
                            expected.append(data)
                    else:
                        expected.append(data)
                        nursery.start_soon(both.line.push if way == "push" else both.line.send, data)
                    both.read_some(read)
                    await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(both.line.push, b"")
                while nursery.child_tasks:
                    both.read()
                    await trio.testing.wait_all_tasks_blocked()
            assert both.read() == b"".join(expected)

    trio.run(main)


# --- in bounded time


async def test_a_client_that_takes_nothing_is_gone_after_the_timeout(autojump_clock: MockClock) -> None:
    Line.configure(30)
    with ends() as both:
        both.fill()
        assert not await both.line.send(FIRST)
        assert trio.current_time() == pytest.approx(30)
        assert both.gone == 1
        assert not Line._waiting
        assert await both.line.send(SECOND), "nothing is sent to one that is gone, and nothing waited for"
        assert both.line.offer(THIRD) == 0
        assert await both.line.push(THIRD)
        assert trio.current_time() == pytest.approx(30)
        assert set(both.read()) == {0}


async def test_those_who_wait_behind_a_client_that_takes_nothing_wait_no_longer(autojump_clock: MockClock) -> None:
    Line.configure(30)
    with ends() as both:
        both.fill()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(both.line.send, FIRST)
        assert trio.current_time() == pytest.approx(30)
        assert both.gone == 1


async def test_a_rest_is_bounded_as_well(autojump_clock: MockClock) -> None:
    Line.configure(30)
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(3)
        assert line.offer(FIRST) == 3
        await trio.sleep(100)
        assert both.gone == 0, "nobody waits"
        await line.push(b"")
        assert trio.current_time() == pytest.approx(130)
        assert both.gone == 1


async def test_a_client_that_takes_something_in_time_has_more_time(autojump_clock: MockClock) -> None:
    Line.configure(30)
    with ends(Narrow) as both:
        line = narrow(both)
        data = bytes(100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.send, data)
            for _ in range(4):
                await trio.sleep(29)
                line.widen(25_000)
        assert both.gone == 0
        assert len(both.read()) == len(data)


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_a_client_that_takes_a_byte_a_second_is_gone_when_a_slow_one_would_be_done(
    autojump_clock: MockClock, size: int
) -> None:
    Line.configure(30)
    with ends(Narrow) as both:
        line = narrow(both)

        async def dribble() -> None:
            while True:
                await trio.sleep(1)
                line.widen(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            assert not await line.send(bytes(size))
            nursery.cancel_scope.cancel()
        assert both.gone == 1
        assert trio.current_time() == pytest.approx(30 + size / 1024)


@pytest.mark.parametrize("is_first", [True, False])
async def test_at_the_end_all_has_to_hurry(autojump_clock: MockClock, is_first: bool) -> None:
    Line.configure(30)
    with ends() as both:
        both.fill()
        if is_first:
            await trio.sleep(1)
            Line.hurry(2)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(both.line.send, FIRST)
            if not is_first:
                await trio.sleep(1)
                Line.hurry(2)
        assert trio.current_time() == pytest.approx(3)
        assert both.gone == 1
    with ends() as both:
        await trio.sleep(5)
        assert await both.line.send(FIRST), "what the socket takes at once is not too late"
        both.fill()
        assert not await both.line.send(FIRST)
        assert trio.current_time() == pytest.approx(8)
        assert both.gone == 1


async def test_one_that_hurries_is_not_given_more_time_than_it_had(autojump_clock: MockClock) -> None:
    Line.configure(3)
    with ends() as both:
        both.fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.line.send, FIRST)
            await trio.sleep(1)
            Line.hurry(100)
        assert trio.current_time() == pytest.approx(3)
        assert both.gone == 1


# --- closed sockets


async def test_no_byte_for_a_closed_connection_reaches_the_next_that_has_its_number() -> None:
    with ends() as both:
        number = both.stream.socket.fileno()
        both.line.shut()  # as whoever closes does: `closed_in_order` sees to it
        await both.stream.aclose()
        other_end, other = socket.socketpair()
        with other_end, other:
            # The kernel gives the smallest number that is free.
            numbers = {other_end.fileno(), other.fileno()}
            assert number in numbers
            other_end.setblocking(False)
            other.setblocking(False)
            assert both.line.offer(FIRST) == 0
            await both.line.push(THIRD)
            await both.line.send(SECOND)
            assert both.gone == 1
            for end in (other_end, other):
                with pytest.raises(BlockingIOError):
                    end.recv(1)


async def test_no_byte_of_a_rest_reaches_the_next_that_has_its_number() -> None:
    with ends(Narrow) as both:
        line = narrow(both)
        line.widen(3)
        line.offer(FIRST)
        await both.stream.aclose()
        line.widen(math.inf)
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)
            await line.push(b"")
            await line.send(SECOND)
            assert both.gone >= 1
            for end in (one, other):
                with pytest.raises(BlockingIOError):
                    end.recv(1)


async def test_a_send_that_waits_ends_when_the_connection_is_closed(autojump_clock: MockClock) -> None:
    with ends() as both:
        both.fill()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(both.line.send, FIRST)
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(both.stream)
        assert trio.current_time() == 0
        assert both.gone >= 1


async def test_a_client_that_left_is_gone_and_nothing_is_raised() -> None:
    for way in ("offer", "push", "send"):
        with ends() as both:
            both.theirs.close()
            if way == "offer":
                assert both.line.offer(FIRST) == 0
            elif way == "push":
                await both.line.push(FIRST)
            else:
                await both.line.send(FIRST)
            assert both.gone == 1
            await both.line.send(SECOND)
            assert both.gone == 1


async def test_a_client_that_leaves_while_it_is_waited_for_is_gone(autojump_clock: MockClock) -> None:
    with ends() as both:
        both.fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.line.send, FIRST)
            await trio.testing.wait_all_tasks_blocked()
            both.theirs.close()
        assert trio.current_time() < 30
        assert both.gone == 1


# --- what does not take bytes as they are


class Sealed(trio.abc.SendStream):
    """A stream that is no socket, as TLS is: it takes all of a `send_all`, or blocks."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.takes = trio.Event()
        self.is_broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.takes.wait()
        if self.is_broken:
            raise trio.BrokenResourceError
        self.sent.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_under_tls_one_waits_for_the_other() -> None:
    stream = Sealed()
    line = Line(stream, lambda: None)
    assert not line.is_direct
    async with trio.open_nursery() as nursery:
        for data in (FIRST, SECOND, THIRD):
            nursery.start_soon(line.send, data)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        stream.takes.set()
    assert stream.sent == [FIRST, SECOND, THIRD]


async def test_under_tls_a_client_that_takes_nothing_is_gone_in_time(autojump_clock: MockClock) -> None:
    Line.configure(30)
    gone: list[float] = []
    line = Line(Sealed(), lambda: gone.append(trio.current_time()))
    size = 10_240
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.send, bytes(size))
        nursery.start_soon(line.send, bytes(size))
    assert gone == [pytest.approx(30 + size / 1024)]


async def test_under_tls_a_broken_connection_is_gone_and_nothing_is_raised() -> None:
    stream = Sealed()
    stream.takes.set()
    stream.is_broken = True
    gone: list[None] = []
    line = Line(stream, lambda: gone.append(None))
    await line.send(FIRST)
    await line.send(FIRST)
    assert gone == [None]


async def test_real_tls_is_not_direct() -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    line = Line(trio.SSLStream(ours, ssl.create_default_context(), server_hostname="x"), lambda: None)
    assert not line.is_direct


async def test_the_kernel_holds_a_bounded_part_of_what_a_client_does_not_take() -> None:
    async def taken() -> int:
        """How much a socket takes at once."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with (
            listener,
            await trio.open_tcp_stream(*listener.socket.getsockname()) as theirs,
            await listener.accept() as ours,
        ):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2**31 - 1)
            line = Line(ours, lambda: None)
            count = 0
            while some := line._write(line._descriptor, bytes(100_000)):
                count += some
            return count

    assert 100_000 < await taken() <= 2 * SEND_BUFFER + 300_000, "and what the client's kernel has taken"
    Line.configure(30, 4096)
    assert await taken() < 100_000, "or the bound would not be what bounds it"


# --- whether the client is there


class Doubted:
    """A line whose client answers pings when the test says so."""

    def __init__(self) -> None:
        self.doubts = 0
        self.line = Line(trio.testing.MemorySendStream(), lambda: None, self._ping)

    def _ping(self) -> None:
        self.doubts += 1
        self.line.ping()


async def test_a_client_that_answers_is_there(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ends = Doubted()
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await ends.line.is_there())

    await trio.sleep(20)
    nursery.start_soon(ask)
    nursery.start_soon(ask)
    await trio.sleep(1)
    ends.line.hear()
    await trio.testing.wait_all_tasks_blocked()
    assert (answers, ends.doubts) == ([True, True], 1), "one ping is enough for all who ask"
    assert not ends.line.is_silent
    assert ends.line.heard_at == trio.current_time()


async def test_a_client_that_does_not_answer_is_silent_from_the_first_ping_on(autojump_clock: MockClock) -> None:
    line = Doubted().line
    await trio.sleep(20)
    began = trio.current_time()
    assert not await line.is_there()
    assert trio.current_time() - began == Line.answers_within + 0.5
    assert line.is_silent
    line.ping()
    assert line.is_silent, "another ping gives it no more time"
    began = trio.current_time()
    assert not await line.is_there()
    assert trio.current_time() == began, "it has been asked"
    line.hear()
    line.ping()
    await trio.sleep(1)
    is_silent = line.is_silent
    assert not is_silent, "it was heard of, and has some time for the next"


async def test_of_a_client_that_cannot_be_pinged_nothing_is_known(autojump_clock: MockClock) -> None:
    line = Line(trio.testing.MemorySendStream(), lambda: None)
    await trio.sleep(20)
    assert await line.is_there()
    assert not line.is_silent


async def test_who_is_gone_is_not_asked(autojump_clock: MockClock) -> None:
    ends = Doubted()
    ends.line.shut()
    assert not await ends.line.is_there()
    assert ends.doubts == 0
