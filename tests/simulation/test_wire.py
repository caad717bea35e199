"""A connection in memory: how it ends, and what half-open means."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from scripts.simulation.wire import Wire


async def test_who_sends_to_one_that_has_left_is_told() -> None:
    wire = Wire([])
    wire.server_end.receive_stream.close()
    with pytest.raises(trio.BrokenResourceError):
        await wire.client_end.send_all(b"lost")
    wire.client_end.send_stream.close()
    with pytest.raises(trio.ClosedResourceError):
        await wire.client_end.send_all(b"lost")


async def test_what_was_sent_before_the_end_arrives_before_it() -> None:
    wire = Wire([])
    await wire.client_end.send_all(b"all")
    wire.client_end.send_stream.close()
    assert await wire.server_end.receive_some(2) == b"al"
    assert await wire.server_end.receive_some() == b"l"
    assert await wire.server_end.receive_some() == b""
    wire.server_end.receive_stream.close()
    with pytest.raises(trio.ClosedResourceError):
        await wire.server_end.receive_some()


async def test_half_open_nothing_arrives_and_nobody_is_told(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire([])
    wire.cut()
    await wire.client_end.send_all(b"lost")
    await wire.client_end.aclose()
    await wire.server_end.send_all(b"lost, too")
    with trio.move_on_after(1_000) as patience:
        await wire.server_end.receive_some()
    assert patience.cancelled_caught
