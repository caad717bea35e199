"""Places for connections, over real sockets under real Hypercorn."""

from __future__ import annotations

import json
import resource
import ssl
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from candlesync.edge import admission
from candlesync.edge.admission import raise_file_limit
from candlesync.edge.frames import Unlimited
from candlesync.web.access import AccessSettings, Token
from tests.edge.clients import PATIENCE
from tests.edge.test_server import eventually, opened
from tests.stalls import again_if_disturbed
from tests.web.builders import Port, Web, on_a_port, read_all, upgrade

GET = b"GET /symbols HTTP/1.1\r\nHost: x\r\n\r\n"


async def ask(port: Port, request: bytes) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own; status, headers and JSON of the answer, which ends the connection."""
    async with await port.connect() as stream:
        await stream.send_all(request)
        received = await read_all(stream)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-length"] == str(len(body))
    return int(status.split()[1]), headers, json.loads(body)


async def test_beyond_the_last_place_there_is_an_answer_and_a_place_that_is_left_is_free_again() -> None:
    web = Web(max_connections=3)
    web.topic()
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await opened(port)) for _ in range(3)]
        for request in (GET, upgrade("/ws/candles")):
            status, headers, value = await ask(port, request)
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "5")
            assert value["error"]["code"] == "server_full"
        assert web.connections.refused == {"connections": 2}
        await streams[0].aclose()
        await eventually(lambda: web.connections.open == 2)
        async with port.websocket("/ws/candles/BTCUSDT?replay=1") as socket:
            await socket.get_message()
    assert web.connections.open == 0


async def test_a_full_server_is_well_and_says_so_to_operators() -> None:
    web = Web(max_connections=2)
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(await opened(port))
        for path in ("/health", "/ready", "/metrics", "/health?x=1"):
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            async with await port.connect() as stream:
                await stream.send_all(request)
                assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")
        for path in ("/healthy", "/symbols", "/"):
            status, _, value = await ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (status, value["error"]["code"]) == (503, "server_full")


async def test_operators_are_let_into_a_full_server_a_few_at_once_and_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_BEYOND", 0.5)
    web = Web(max_connections=16)
    probe = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(await opened(port))
        stayers = [await stack.enter_async_context(await port.connect()) for _ in range(4)]
        for stream in stayers:
            await stream.send_all(probe)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert (await ask(port, probe))[0] == 503
        for stream in stayers:
            await read_all(stream, seconds=3)
        async with await port.connect() as stream:
            await stream.send_all(probe)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@again_if_disturbed
async def test_who_says_nothing_and_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.2)
    web = Web(max_connections=1)
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        await stack.enter_async_context(await opened(port))
        started = trio.current_time()
        silent = await stack.enter_async_context(await port.connect())
        assert b" 503 " in await read_all(silent), "told even so"
        talker = await stack.enter_async_context(await port.connect())
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            await talker.send_all(bytes(100_000_000))
        assert trio.current_time() - started < 3


async def test_a_storm_at_a_full_server_holds_few_files_and_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_AT_ONCE", 5)
    monkeypatch.setattr(admission, "_PATIENCE", 0.2)
    web = Web(max_connections=1)
    web.topic()
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        socket = await stack.enter_async_context(port.websocket("/ws/candles"))
        streams = [await stack.enter_async_context(await port.connect()) for _ in range(50)]
        received = []

        async def read(stream: trio.SocketStream) -> None:
            received.append(await read_all(stream))

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read, stream)
            await socket.send_message('{"op":"ping"}')
            assert json.loads(await socket.get_message()) == {"op": "pong"}
        assert sum(b" 503 " in answer for answer in received) == 5
        assert sum(answer == b"" for answer in received) == 45
        assert web.connections.refused == {"connections": 50}


async def test_so_many_connections_of_one_address() -> None:
    web = Web(access=AccessSettings(connections=2, unlimited=()))
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(await opened(port))
        status, headers, value = await ask(port, GET)
        assert (status, value["error"]["code"], headers["retry-after"]) == (429, "too_many", "5")


async def test_the_clients_of_a_proxy_are_counted_one_by_one() -> None:
    web = Web(access=AccessSettings(connections=1, request_rate=1.0, trusted_proxies=("127.0.0.1",)))
    async with on_a_port(web) as port, AsyncExitStack() as stack:
        for number in range(5):
            client = f"X-Forwarded-For: 192.0.2.{number}"
            stream = await stack.enter_async_context(await port.connect())
            await stream.send_all(upgrade("/ws/candles", client))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            status, headers, value = await ask(port, upgrade("/ws/candles", "X-Forwarded-For: 1.1.1.1", client))
            assert (status, value["error"]["code"]) == (429, "too_many")
            assert headers["connection"] == "close", "the proxy would keep a connection that has ended"
            assert value["error"]["message"].startswith("this address has 1 connections")
        client = "X-Forwarded-For: 192.0.2.99\r\nConnection: close"
        request = f"GET /symbols HTTP/1.1\r\nHost: x\r\n{client}\r\n\r\n".encode()
        statuses = [(await ask(port, request))[0] for _ in range(12)]
        assert statuses == [200] * 10 + [429] * 2


async def test_access_over_real_sockets() -> None:
    web = Web(access=AccessSettings(tokens=(Token("sesame"),), origins=("https://chart.example",)))
    web.topic()
    async with on_a_port(web) as port:
        status, headers, value = await ask(port, upgrade("/ws/candles/BTCUSDT"))
        assert (status, headers["www-authenticate"], value["error"]["code"]) == (401, "bearer", "unauthorized")
        status, _, value = await ask(port, upgrade("/ws/candles/BTCUSDT?token=sesame", "Origin: https://other.example"))
        assert (status, value["error"]["code"]) == (403, "forbidden")
        async with port.websocket("/ws/candles/BTCUSDT?replay=1&token=sesame") as socket:
            assert json.loads(await socket.get_message())["symbol"] == "BTCUSDT"


class Full:
    """No place for anybody."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def enter_beyond(self, request: bytes) -> bool:
        raise AssertionError(f"{request!r} was read")

    def leave_beyond(self) -> None: ...

    def enter(self, host: str | None) -> bytes:
        self.asked.append(host)
        return b"no"

    def leave(self, host: str | None) -> None:
        raise AssertionError(f"{host} has not entered")

    def new_frames(self) -> Unlimited:
        raise AssertionError("frames of a client that has not entered")


async def test_over_tls_there_is_no_handshake_for_a_refusal() -> None:
    ours, theirs = trio.socket.socketpair()
    stream = trio.SSLStream(trio.SocketStream(ours), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)
    full = Full()

    async def never() -> None:
        raise AssertionError("served without a place")

    with trio.fail_after(PATIENCE):
        await admission.Admission(full).serve(stream, never)
    await trio.aclose_forcefully(stream)
    assert await theirs.recv(1) == b""
    theirs.close()
    assert full.asked == [None], "over a UNIX socket there is no address"


def test_the_soft_limit_of_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 400 if hard == resource.RLIM_INFINITY else min(400, hard)
    program = (
        "import resource\n"
        "from candlesync.edge.admission import raise_file_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({wanted // 2}, {wanted}))\n"
        "print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(wanted)] * 3
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_without_a_limit_of_files_there_is_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_file_limit() > 1_000_000


def test_a_system_that_refuses_leaves_the_limit_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == 256
