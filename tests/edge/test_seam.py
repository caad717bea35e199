"""What we rely on in Hypercorn, wsproto and Trio, by name: a new version that has it otherwise fails here, loudly.

Without these our connections would fall back to the ordinary way, or serve it wrong, and say nothing.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable
from types import CodeType
from typing import Any

import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import pytest
import trio
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Data
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import Handshake, WSStream
from hypercorn.trio import task_group
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from candlesync.core import wire
from candlesync.edge import frames, http1, http2, server, websocket
from candlesync.edge.connection import BoundedServer
from tests.web.builders import SEAMS


def names_in(function: Callable[..., object]) -> set[str]:
    """All names that a function uses, and those within it."""
    found: set[str] = set()
    codes: list[CodeType] = [function.__code__]
    while codes:
        code = codes.pop()
        found.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


SIGNATURES: dict[Callable[..., object], list[str]] = {
    TCPServer.__init__: ["self", "app", "config", "context", "state", "stream"],
    TCPServer.run: ["self"],
    TCPServer.protocol_send: ["self", "event"],
    TCPServer._read_data: ["self"],
    TCPServer._close: ["self"],
    WSStream.__init__: [
        *("self", "app", "config", "context", "task_group", "ssl", "client", "server", "send", "stream_id")
    ],
    WSStream.handle: ["self", "event"],
    WSStream.app_send: ["self", "message"],
    WSStream._send_wsproto_event: ["self", "event"],
    WSStream._send_pings: ["self"],
    H11Protocol.handle: ["self", "event"],
    H11Protocol._check_protocol: ["self", "event"],
    H11Protocol._send_error_response: ["self", "status_code"],
    H2Protocol._handle_events: ["self", "events"],
    H2Protocol._send_data: ["self", "stream_id"],
    Connection.__init__: ["self", "connection_type", "extensions", "trailing_data"],
    Connection.events: ["self"],
    StreamBuffer.__init__: ["self", "event_class"],
    StreamBuffer.push: ["self", "data"],
    StreamBuffer.pop: ["self", "max_length"],
    StreamBuffer.drain: ["self"],
    StreamBuffer.close: ["self"],
    TaskGroup.spawn_app: ["self", "app", "config", "scope", "send"],
    vars(task_group)["_handle"]: ["app", "config", "scope", "receive", "send", "sync_spawn", "call_soon"],
    Lifespan.__init__: ["self", "app", "config", "state"],
    WorkerContext.__init__: ["self", "max_requests"],
    EventWrapper.set: ["self"],
    vars(hypercorn.protocol.ws_stream)["server_extensions_handshake"]: ["requested", "supported"],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_what_is_replaced_or_called_takes_what_it_took(function: Callable[..., object]) -> None:
    assert list(inspect.signature(function).parameters) == SIGNATURES[function]


USES: list[tuple[Callable[..., object], set[str]]] = [
    # Where Hypercorn looks for what we replace, at the time when it needs it.
    (hypercorn.trio.run.worker_serve, {"TCPServer", "WorkerContext", "Lifespan"}),
    (ProtocolWrapper.__init__, {"H11Protocol", "H2Protocol"}),
    (ProtocolWrapper.handle, {"H2Protocol"}),
    (H11Protocol._create_stream, {"WSStream", "keep_alive_requests"}),
    (H11Protocol._handle_events, {"_check_protocol"}),
    (H2Protocol.handle, {"_handle_events"}),
    (H2Protocol.send_task, {"_send_data"}),
    (H2Protocol._handle_events, {"keep_alive_max_requests", "streams"}),
    (Handshake.accept, {"Connection"}),
    (H2Protocol._create_stream, {"WSStream", "StreamBuffer"}),
    (Handshake.accept, {"server_extensions_handshake"}),
    # The methods of a connection that we replace are those that it uses.
    (TCPServer.run, {"protocol_send", "_read_data", "_close", "protocol", "TaskGroup"}),
    (WSStream.handle, {"spawn_app", "app_put"}),
    (HTTPStream.handle, {"spawn_app", "app_put"}),
    (TCPServer.protocol_send, {"idle_task", "_idle_timeout"}),
    # All that a WebSocket sends goes through `send`, one frame at a time.
    (WSStream._send_wsproto_event, {"send", "Data"}),
    (WSStream._accept, {"_send_pings", "websocket_ping_interval", "handshake"}),
    (WSStream.app_send, {"_send_wsproto_event", "closed"}),
    (WSStream._handle_events, {"_send_wsproto_event"}),
    (H11Protocol.stream_send, {"Data", "RawData", "send"}),
    (H2Protocol.stream_send, {"push", "drain"}),
    (H2Protocol._send_data, {"pop", "close"}),
    (StreamBuffer.push, {"_complete", "buffer", "_is_empty"}),
]


@pytest.mark.parametrize(("function", "names"), USES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_hypercorn_still_uses_what_is_replaced(function: Callable[..., object], names: set[str]) -> None:
    assert names <= names_in(function)


def test_install_replaces_each_by_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {}
    for module, name in SEAMS:
        before[module, name] = getattr(module, name)
        monkeypatch.setattr(module, name, before[module, name])
    server.install(send_timeout=30, grace=10, on_termination=lambda: None)
    for module, name in SEAMS:
        assert getattr(module, name) is not before[module, name]
        assert getattr(module, name).__module__.startswith("candlesync.edge.")
    assert issubclass(BoundedServer, TCPServer)
    assert issubclass(websocket.StrictStream, WSStream)
    assert issubclass(http2.BoundedBuffer, StreamBuffer)
    assert issubclass(http1.StrictRequests, H11Protocol)
    assert issubclass(http2.StrictHttp2, H2Protocol)
    assert issubclass(frames.CountedConnection, Connection)


def test_install_is_complete() -> None:
    """The tests put back all that it replaces."""
    source = inspect.getsource(server.install)
    assert source.count("vars(") == len(SEAMS)
    for module, name in SEAMS:
        assert f'vars({module.__name__})["{name}"]' in source


def test_what_a_stream_is_made_of() -> None:
    """Its scope is set as an attribute, with extensions, and it has the attributes that we read."""
    made: Any = object()
    stream = WSStream(made, Config(), made, made, False, None, None, made, 1)
    for name in ("closed", "config", "context", "send", "state", "stream_id"):
        assert hasattr(stream, name)
    assert {"scope", "handshake", "connection"} <= set(WSStream.__annotations__) | names_in(WSStream.handle)
    assert "extensions" in inspect.getsource(WSStream.handle)
    assert inspect.signature(Data).parameters.keys() == {"stream_id", "data"}


def test_what_a_buffer_does() -> None:
    async def main() -> None:
        buffer = StreamBuffer(EventWrapper)
        await buffer.push(b"abc")
        assert (bytes(buffer.buffer), buffer._complete) == (b"abc", False)
        assert await buffer.pop(2) == b"ab"
        assert 16_384 <= BUFFER_HIGH_WATER <= 65_536
        await buffer.close()
        with pytest.raises(hypercorn.protocol.h2.BufferCompleteError):
            await buffer.push(b"d")

    trio.run(main)


def test_each_event_of_wsproto_is_one_frame_of_ours() -> None:
    connection = Connection(ConnectionType.SERVER)
    assert connection.send(TextMessage("a" * 300)) == wire.frame(b"a" * 300)
    assert connection.send(Ping())[:1] == b"\x89"
    assert connection.send(CloseConnection(1012, "going_down"))[:1] == websocket._CLOSE
    assert connection.state is ConnectionState.LOCAL_CLOSING
    with pytest.raises(LocalProtocolError):
        connection.send(Ping())


def test_a_closed_socket_has_no_number() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        fileno = stream.socket.fileno
        assert fileno() >= 0
        await stream.aclose()
        assert fileno() == -1
        theirs.close()

    trio.run(main)
