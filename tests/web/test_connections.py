"""Which connections are let in."""

from __future__ import annotations

import json

import h11
import pytest

from candlesync.core.address import LOOPBACK, Callers, Networks
from candlesync.web.connections import Connections

A, B = "192.0.2.1", "192.0.2.2"


def connections(most: int = 10, each: float = 2, proxies: tuple[str, ...] = ()) -> Connections:
    return Connections(most, each, Callers(Networks(proxies), Networks(LOOPBACK)))


def read(answer: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers and error code of a whole HTTP answer, as a client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    client.receive_data(b"")
    response, body = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(body, h11.Data)
    assert isinstance(client.next_event(), h11.EndOfMessage)
    value = json.loads(body.data)
    assert list(value) == ["error"]
    assert list(value["error"]) == ["code", "message"]
    return (
        response.status_code,
        {name.decode(): text.decode() for name, text in response.headers},
        value["error"]["code"],
    )


def test_so_many_in_all() -> None:
    doors = connections(most=3)
    for host in (A, A, B):
        assert doors.enter(host) == b""
    assert doors.open == doors.most == 3
    status, headers, code = read(doors.enter("192.0.2.3"))
    assert (status, code, headers["retry-after"], headers["connection"]) == (503, "server_full", "5", "close")
    assert headers["content-type"] == "application/json"
    assert headers["access-control-allow-origin"] == "*"
    assert read(doors.enter("127.0.0.1"))[0] == 503
    doors.leave(A)
    assert doors.enter("192.0.2.3") == b""
    assert doors.refused == {"connections": 2}


def test_so_many_of_one_address() -> None:
    doors = connections()
    for host in (A, A, B, "2001:db8::1", "2001:db8::2"):
        assert doors.enter(host) == b""
    for host in (A, "2001:db8::3", f"::ffff:{A}"):
        status, headers, code = read(doors.enter(host))
        assert (status, code, headers["retry-after"]) == (429, "too_many", "5")
    assert doors.enter(B) == b""
    doors.leave(A)
    assert doors.enter(A) == b""
    assert doors.refused == {"connections_per_address": 3}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None, "10.0.0.1"])
def test_this_machine_and_trusted_proxies_count_only_in_all(host: str | None) -> None:
    doors = connections(most=10, proxies=("10.0.0.0/8",))
    assert [doors.enter(host) for _ in range(10)] == [b""] * 10
    assert read(doors.enter(host))[0] == 503
    for _ in range(10):
        doors.leave(host)
    assert doors.open == 0


def test_fewer_than_was_wanted_and_never_more() -> None:
    doors = connections(most=10)
    doors.allow_only(20)
    assert doors.most == 10
    doors.allow_only(1)
    assert doors.most == 1
    assert doors.enter(A) == b""
    assert read(doors.enter(B))[0] == 503
