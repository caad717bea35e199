"""What holds for every test of the edge."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import pytest
import trio

from candlesync.edge.connection import BoundedServer
from candlesync.edge.line import Line
from tests.web.builders import clean_log

__all__ = ["clean_log"]


@pytest.fixture(name="closed_in_order", autouse=True)
def _closed_in_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However a connection ends, its line is shut before its socket is closed: a line knows its socket by a number,
    which is somebody else's soon.
    """
    lines: WeakKeyDictionary[trio.abc.AsyncResource, Line] = WeakKeyDictionary()
    open_when_closed: list[Line] = []
    begin, close = BoundedServer.__init__, trio.SocketStream.aclose

    def note(server: BoundedServer, *arguments: object) -> None:
        begin(server, *arguments)
        lines[server.stream] = server.line

    async def aclose(stream: trio.SocketStream) -> None:
        line = lines.get(stream)
        if line is not None and line._is_free:
            open_when_closed.append(line)
        await close(stream)

    monkeypatch.setattr(BoundedServer, "__init__", note)
    monkeypatch.setattr(trio.SocketStream, "aclose", aclose)
    yield
    assert not open_when_closed
