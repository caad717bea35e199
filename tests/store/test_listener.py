"""Hearing what is announced, over real servers and all that can become of them, in real time."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis
import trio

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.replica import Commit
from candlesync.store.address import Address
from candlesync.store.announcing import ASSEMBLED
from candlesync.store.base import Audience
from candlesync.store.codec import encode_commit
from candlesync.store.listener import Listener, Subscription
from candlesync.store.redis import RedisSettings, RedisStore
from tests.builders import BTC, candle, minute
from tests.ports import free_port
from tests.stalls import stalls, within
from tests.store.contract import follow
from tests.store.redis_server import REDIS, RedisServer, redis_store, run_cluster, run_server, shared
from tests.store.shared_contract import Ear, hearing

LEASE = 0.5


def store_at(url: str, *, prefix: str = "p") -> RedisStore:
    """One that only listens: that needs no more than this."""
    return RedisStore(RedisSettings(Address(url), prefix=prefix, lease=LEASE), 10)


def names(ear: Ear) -> list[object]:
    return [told[0] for told in ear.heard]


async def until(is_so: Callable[[], object], seconds: float = 10) -> float:
    """Wait for it; how many seconds it took."""
    started = trio.current_time()
    with trio.fail_after(seconds):
        while not is_so():  # noqa: ASYNC110 - asked of servers and threads
            await trio.sleep(0.01)
    return trio.current_time() - started


def listeners(server: RedisServer) -> int:
    """How many connections are subscribed."""
    return len(server.client().client_list(_type="pubsub"))


# --- losing the server and finding it again


async def test_a_server_that_dies_is_heard_again_when_it_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    with run_server() as server:
        store = store_at(server.url)
        async with hearing(store) as ear:
            server.kill()
            await ear.until(1)
            ((name, reason),) = ear.heard
            assert name == "deaf"
            assert f"127.0.0.1:{server.port}" in str(reason)
            await trio.sleep(1.0)
            assert names(ear) == ["deaf"], "told once, however often it is tried"
            server.start()
            await ear.until(2)
            server.client().publish(store.keys.assembly, ASSEMBLED)
            await ear.until(3)
            assert names(ear) == ["deaf", "listening", "assembled"]
    said = capsys.readouterr().out
    assert said.count("cannot be heard") == said.count("heard again") == 1


async def test_a_server_that_is_not_there_yet() -> None:
    with run_server() as server:
        server.kill()
        ear = Ear()
        async with trio.open_nursery() as nursery:
            await nursery.start(store_at(server.url).listen, ear)
            await ear.until(1)
            assert names(ear) == ["deaf"]
            server.start()
            await ear.until(2)
            assert names(ear) == ["deaf", "listening"]
            nursery.cancel_scope.cancel()


async def test_a_server_that_hangs_is_noticed_within_two_leases_though_there_is_nothing_to_hear() -> None:
    with run_server() as server:
        async with hearing(store_at(server.url)) as ear:
            await trio.sleep(4 * LEASE)
            assert ear.heard == [], "silence alone is no reason"
            server.signal(signal.SIGSTOP)
            with within(2 * LEASE + 0.1):
                await until(lambda: ear.heard)
            assert names(ear) == ["deaf"]
            assert "silent" in str(ear.heard[0][1])
            server.signal(signal.SIGCONT)
            await ear.until(2)
            assert names(ear) == ["deaf", "listening"]


class Wire:
    """A way to a server that can be cut: what is sent on it from then on arrives nowhere, and nobody is told."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._open = trio.CancelScope()
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        await trio.serve_tcp(self._carry, 0, host="127.0.0.1", task_status=_PortTo(self, task_status))

    def cut(self) -> None:
        """What is there now; later connections are whole."""
        self._open.cancel()
        self._open = trio.CancelScope()

    async def _carry(self, near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._server.port) as far:
            with self._open:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, near, far)
                    nursery.start_soon(self._copy, far, near)
            await trio.sleep_forever()

    async def _copy(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            await target.send_all(data)


class _PortTo(trio.TaskStatus[list[trio.SocketListener]]):
    def __init__(self, wire: Wire, status: trio.TaskStatus[None]) -> None:
        self._wire = wire
        self._status = status

    def started(self, value: list[trio.SocketListener] | None = None) -> None:
        assert value is not None
        self._wire.port = value[0].socket.getsockname()[1]
        self._status.started()


async def test_a_connection_that_was_cut_without_a_word_is_noticed_within_two_leases() -> None:
    wire = Wire(shared())
    async with trio.open_nursery() as nursery:
        await nursery.start(wire.run)
        async with hearing(store_at(f"redis://127.0.0.1:{wire.port}", prefix="cut")) as ear:
            wire.cut()
            with within(2 * LEASE + 0.1):
                await until(lambda: ear.heard)
            await ear.until(2)
            assert names(ear) == ["deaf", "listening"]
        nursery.cancel_scope.cancel()


async def test_a_connection_that_the_server_closes() -> None:
    with run_server() as server:
        store = store_at(server.url)
        async with hearing(store) as ear:
            for _ in range(3):
                server.client().client_kill_filter(_type="pubsub")
                await ear.until(2)
                assert names(ear) == ["deaf", "listening"]
                ear.heard.clear()
                server.client().publish(store.keys.assembly, ASSEMBLED)
                await ear.hears(("assembled",))


async def test_a_node_that_is_too_slow_for_the_server_is_deaf_and_not_silently_short_of_something() -> None:
    with run_server("--client-output-buffer-limit", "pubsub", "1mb", "512kb", "1") as server:
        store = store_at(server.url)
        gate = threading.Event()

        class Slow(Ear):
            def assembled(self) -> None:
                gate.set()
                time.sleep(1.0)

        def flood() -> None:
            assert gate.wait(5)
            pipeline = server.client().pipeline(transaction=False)
            for _ in range(10_000):  # Valkey does not count large messages
                pipeline.publish(store.keys.channel("BTCUSDT"), b"x" * 2_000)
            pipeline.execute()

        thread = threading.Thread(target=flood)
        thread.start()
        async with hearing(store, Slow()) as ear:
            server.client().publish(store.keys.assembly, ASSEMBLED)
            await ear.until(2)
            assert names(ear) == ["deaf", "listening"]
        thread.join()


# --- what a person is told


async def test_a_wrong_password_is_said_and_tried_again() -> None:
    with run_server() as server:
        client = server.client()
        client.execute_command("ACL", "SETUSER", "me", "on", ">right", "allkeys", "allchannels", "+@all")
        ear = Ear()
        async with trio.open_nursery() as nursery:
            await nursery.start(store_at(server.url.replace("//", "//me:secret@")).listen, ear)
            await ear.until(1)
            assert "refuses the user name or the password" in str(ear.heard[0][1])
            assert "secret" not in str(ear.heard)
            client.execute_command("ACL", "SETUSER", "me", ">secret")
            await ear.until(2)
            assert names(ear) == ["deaf", "listening"]
            nursery.cancel_scope.cancel()


async def test_a_user_who_may_not_hear() -> None:
    with run_server() as server:
        server.client().execute_command("ACL", "SETUSER", "me", "on", ">secret", "allkeys", "+@all", "resetchannels")
        ear = Ear()
        async with trio.open_nursery() as nursery:
            await nursery.start(store_at(server.url.replace("//", "//me:secret@")).listen, ear)
            await ear.until(1)
            assert "may not do what candlesync needs" in str(ear.heard[0][1])
            nursery.cancel_scope.cancel()


@contextmanager
def something_else(*answers: bytes) -> Iterator[int]:
    """The port of a server that answers each thing that it is sent with the next of these, and then no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                for answer in answers:
                    if not connection.recv(65_536):
                        break
                    connection.sendall(answer)

        held: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
            thread.join()


HANDSHAKE = b"+OK\r\n" * 3
SUBSCRIBED = b"*3\r\n$10\r\npsubscribe\r\n$8\r\np@0:{*}\0\r\n:1\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
        (b"+OK\r\n", b"+OK\r\n" * 2, b"+what?\r\n"),
        (b"+OK\r\n", b"+OK\r\n" * 2, b":7\r\n"),
        (b"+OK\r\n", b"+OK\r\n" * 2, SUBSCRIBED + b"*4\r\n$8\r\npmessage\r\n$3\r"),
        (b"+OK\r\n", b"+OK\r\n" * 2, SUBSCRIBED + b"!junk\r\n"),
        (),
    ],
    ids=["HTTP", "a word", "a number", "half a message", "junk", "nothing"],
)
async def test_something_else_listens_there(answers: tuple[bytes, ...]) -> None:
    with something_else(*answers) as port, stalls() as measured:
        ear = Ear()
        async with trio.open_nursery() as nursery:
            await nursery.start(store_at(f"redis://127.0.0.1:{port}").listen, ear)
            await until(lambda: "deaf" in names(ear), 4)
            cancelled = time.monotonic()
            nursery.cancel_scope.cancel()
        measured.check("cancelled", cancelled, time.monotonic() - cancelled, 1)


# --- what is heard


async def test_what_cannot_be_read_is_left_out_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    async with redis_store(shared().url) as store, hearing(store) as ear:
        client = shared().client()
        channel = store.keys.channel("BTCUSDT")
        for junk in (b"", b"junk", b"\x91\x63", b"\x91" * 100_000, ASSEMBLED):
            client.publish(channel, junk)
        client.publish(f"{channel[:-1]}\udcff}}".encode("utf-8", "surrogateescape"), encode(1))
        client.publish(channel, encode(2))
        await ear.hears(("committed", BTC, follow(2, candle(minute(2)))))
        assert store.statistics().unreadable == 6
    assert capsys.readouterr().out.count("cannot be read") == 1


def encode(revision: int, series: Series = BTC) -> bytes:
    return encode_commit(series, follow(revision, candle(minute(revision))), "id")[1]


async def test_a_prefix_is_taken_as_it_stands() -> None:
    for prefix, others in {
        "a*c": ("abc", "a*cc", "a*c@0:"),
        "a[bc]?": ("ab?", "a[bc]x"),
        "a\\": ("a", "a\\\\"),
    }.items():
        async with redis_store(shared().url, prefix=prefix) as store, hearing(store) as ear:
            for other in others:
                shared().client().publish(f"{other}@0:{{BTCUSDT}}", encode(1))
            shared().client().publish(f"{prefix}@1:{{BTCUSDT}}", encode(1))
            shared().client().publish(store.keys.channel("BTCUSDT"), encode(2))
            await ear.hears(("committed", BTC, follow(2, candle(minute(2)))))
            assert store.statistics().unreadable == 0


async def test_databases_are_apart() -> None:
    async with (
        redis_store(f"{shared().url}/1", prefix="db") as one,
        redis_store(f"{shared().url}/2", prefix="db") as two,
        hearing(one) as first,
        hearing(two) as second,
    ):
        await one.attend(Member("one"))
        await two.attend(Member("two"))
        await two.leave()
        await first.hears(("assembled",))
        await second.hears(("assembled",), ("assembled",))


async def test_much_at_once_is_heard_in_order_and_in_few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    tell = Listener._tell

    def counted(self: Listener, audience: Audience, tellings: list[Callable[[Audience], None]]) -> None:
        nonlocal turns
        turns += 1
        assert len(tellings) <= 256
        tell(self, audience, tellings)

    monkeypatch.setattr(Listener, "_tell", counted)
    series = [Series(f"S{number}USDT", Interval.M1) for number in range(10)]
    async with redis_store(shared().url) as store, hearing(store) as ear:

        def publish() -> None:
            pipeline = shared().client().pipeline(transaction=False)
            for revision in range(1, 501):
                for each in series:
                    pipeline.publish(store.keys.channel(each.symbol), encode(revision, each))
            pipeline.execute()

        await trio.to_thread.run_sync(publish)
        await ear.until(5000)
        for each in series:
            commits = [told[2] for told in ear.heard if told[1] == each]
            assert [made.revision for made in commits if isinstance(made, Commit)] == list(range(1, 501))
    assert turns < 1000


# --- cancellation


@asynccontextmanager
async def cancelled_in_time(store: RedisStore) -> AsyncIterator[Ear]:
    """Listen while the block lasts; then it ends within a second, and leaves no thread of its own."""
    ear = Ear()
    with stalls() as measured:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.listen, ear)
            yield ear
            cancelled = time.monotonic()
            nursery.cancel_scope.cancel()
        measured.check("cancelled", cancelled, time.monotonic() - cancelled, 1)
    await until(lambda: store._listener._limiter.borrowed_tokens == 0, 2)


async def test_cancelled_while_there_is_nothing_to_hear() -> None:
    with run_server() as server:
        async with cancelled_in_time(store_at(server.url)) as ear:
            await ear.until(1)
            assert listeners(server) == 1
        await until(lambda: listeners(server) == 0)


async def test_cancelled_while_there_is_much_to_hear() -> None:
    with run_server() as server:
        store = store_at(server.url)
        done = threading.Event()

        def publish() -> None:
            client = server.client()
            while not done.is_set():
                client.publish(store.keys.assembly, ASSEMBLED)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            async with cancelled_in_time(store) as ear:
                await ear.until(100)
            await until(lambda: listeners(server) == 0)
        finally:
            done.set()
            thread.join()


async def test_cancelled_while_the_server_hangs() -> None:
    with run_server() as server:
        server.signal(signal.SIGSTOP)
        for seconds in (0.0, 0.1, 1.0):
            async with cancelled_in_time(store_at(server.url)):
                await trio.sleep(seconds)
        server.signal(signal.SIGCONT)
        await until(lambda: listeners(server) == 0)


async def test_cancelled_at_any_moment_leaves_no_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # It closes what is collected as garbage: that is not to be relied upon.
    monkeypatch.delattr(redis.connection.AbstractConnection, "__del__")
    with run_server() as server:
        for number in range(30):
            async with cancelled_in_time(store_at(server.url)):
                await trio.sleep(number / 5000)
        await until(lambda: listeners(server) == 0)
        await until(lambda: len(server.client().client_list()) == 1)


def test_closed_by_another_thread_at_any_moment_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(redis.connection.AbstractConnection, "__del__")
    with run_server() as server:
        for number in range(600):
            subscription = Subscription({"host": "127.0.0.1", "port": server.port, "protocol": 2}, "p*", LEASE)
            opening = threading.Thread(target=subscription.open)
            opening.start()
            time.sleep(number % 60 / 60 * 0.0015)
            subscription.close()
            opening.join()
            assert subscription._connection._sock is None


async def test_cancelled_while_waiting_to_try_again() -> None:
    async with cancelled_in_time(store_at("redis://127.0.0.1:1")) as ear:
        await ear.until(1)
        await trio.sleep(0.3)


# --- other ways to a server


async def test_a_unix_socket_and_a_password() -> None:
    with run_server("--requirepass", "hidden", password="hidden") as server:
        async with (
            redis_store(f"unix://:hidden@{server.socket}?db=3") as store,
            hearing(store) as ear,
        ):
            await store.attend(Member("one"))
            await ear.hears(("assembled",))


@pytest.mark.skipif(REDIS is None or shutil.which("openssl") is None, reason="no server that speaks TLS")
async def test_tls(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    await trio.run_process(["openssl", *made, *named, "-keyout", key, "-out", certificate], stderr=subprocess.DEVNULL)
    port = free_port()
    files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
    with run_server("--tls-port", str(port), "--tls-auth-clients", "no", *files, program=REDIS) as server:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
        async with redis_store(url, lease=LEASE) as store, hearing(store) as ear:
            for number in range(300):
                await store.attend(Member(f"name{number}"))
            await ear.until(300)
            await trio.sleep(3 * LEASE)
            assert set(names(ear)) == {"assembled"}
            server.kill()
            await ear.until(301)
            assert names(ear)[-1] == "deaf"


async def test_of_a_cluster_any_server_will_do_and_another_when_one_is_lost() -> None:
    with run_cluster() as servers:
        url = f"redis+cluster://127.0.0.1:{servers[0].port}"
        async with redis_store(url, lease=LEASE) as store, hearing(store) as ear:
            await store.claim("BTCUSDT")  # so that it knows of all three
            well = list(servers)
            for losses in (1, 2):
                (used,) = [server for server in well if listeners(server)]
                well.remove(used)
                used.signal(signal.SIGSTOP)
                await until(lambda: len(ear.of("listening")) == losses)  # noqa: B023 - waited for here
                assert names(ear)[-2:] == ["deaf", "listening"]
            well[0].client().publish(store.keys.assembly, ASSEMBLED)
            await until(lambda: names(ear)[-1] == "assembled")
