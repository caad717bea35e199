"""One stream connection: how it begins, what it may do, and how it ends."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    HandshakeError,
    WebSocketConnection,
)

from candlesync.simulator.faults import Drop, Refuse
from candlesync.simulator.memory import connect_in_memory
from tests.simulator.support import events, events_for, running, simulated

NAME = "btcusdt@kline_1m"


def request(method: str, *params: Any, request_id: int = 1) -> str:
    return json.dumps({"method": method, "params": list(params), "id": request_id})


async def closed_with(connection: WebSocketConnection) -> tuple[int, str | None]:
    with suppress(ConnectionClosed):
        while True:
            await connection.get_message()
    assert connection.closed is not None
    return connection.closed.code, connection.closed.reason


async def test_streams_can_be_asked_for_later(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange:
        for path, wrapped in (("ws", False), ("stream", True)):
            async with connect_in_memory(exchange, f"ws://binance/{path}") as connection:
                assert await events_for(connection, 10) == []
                await connection.send_message(request("SUBSCRIBE", NAME, "ethusdt@kline_1h", request_id=5))
                first, *rest = await events(connection, 6)
                assert first == {"result": None, "id": 5}
                assert all(("stream" in event) is wrapped for event in rest)
                await connection.send_message(request("UNSUBSCRIBE", NAME, "ethusdt@kline_1h"))
                assert (await events_for(connection, 20))[-1] == {"result": None, "id": 1}
                await connection.send_message(request("LIST_SUBSCRIPTIONS"))
                assert await events(connection, 1) == [{"result": [], "id": 1}]
        state = exchange.state()
        assert state["connections"] == {
            "open": 0,
            "ever": 2,
            "refused": 0,
            "by_symbol": {"BTCUSDT": {"open": 0, "ever": 2}, "ETHUSDT": {"open": 0, "ever": 2}},
        }
        assert (state["subscribes"], state["unsubscribes"]) == (2, 2)


async def test_several_raw_streams_in_one_path(autojump_clock: MockClock) -> None:
    url = f"ws://binance/ws/{NAME}/ethusdt@kline_1m"
    async with running(simulated()) as exchange, connect_in_memory(exchange, url) as connection:
        assert {event["s"] for event in await events(connection, 10)} == {"BTCUSDT", "ETHUSDT"}


async def test_streams_that_do_not_exist_are_silent(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange:
        path = "ws/BTCUSDT@kline_1m/nosuch@kline_1m/btcusdt@kline_2m/btcusdt@aggTrade"
        async with connect_in_memory(exchange, f"ws://binance/{path}") as connection:
            assert await events_for(connection, 200) == []


async def test_mistakes_are_answered_and_the_connection_stays(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, connect_in_memory(exchange, "ws://binance/ws") as connection:
        await connection.send_message("nonsense")
        assert (await events(connection, 1))[0]["error"]["code"] == 3
        await connection.send_message(b"\x00")
        assert (await events(connection, 1))[0]["error"]["code"] == 3
        await connection.send_message(request("SUBSCRIBE", NAME))
        assert (await events(connection, 2))[1]["e"] == "kline"


async def test_more_than_five_messages_a_second_end_it(autojump_clock: MockClock) -> None:
    exchange = simulated()
    async with running(exchange), connect_in_memory(exchange, "ws://x/ws", message_queue_size=20) as connection:
        for _ in range(20):
            await connection.send_message(request("LIST_SUBSCRIPTIONS"))
            await trio.sleep(0.21)
        assert len(await events(connection, 20)) == 20
        with suppress(ConnectionClosed):
            for _ in range(6):
                await connection.send_message(request("LIST_SUBSCRIPTIONS"))
        assert await closed_with(connection) == (1008, "Too many requests")


async def test_a_connection_has_at_most_so_many_streams(autojump_clock: MockClock) -> None:
    names = [f"symbol{number}@kline_1m" for number in range(1024)]
    async with running(simulated()) as exchange:
        async with connect_in_memory(exchange, "ws://binance/ws") as connection:
            await connection.send_message(request("SUBSCRIBE", *names))
            assert await events(connection, 1) == [{"result": None, "id": 1}]
            await connection.send_message(request("SUBSCRIBE", "one@kline_1m"))
            assert (await events(connection, 1))[0]["error"] == {"code": 4, "msg": "Too many subscriptions"}
        target = "/".join([*names, "one@kline_1m"])
        async with connect_in_memory(exchange, f"ws://binance/stream?streams={target}") as connection:
            assert (await closed_with(connection))[0] == 1008


async def test_after_a_day_it_is_closed(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, connect_in_memory(exchange, "ws://binance/ws") as connection:
        assert (await closed_with(connection))[0] == 1001
        assert trio.current_time() == 86_400


async def test_a_client_that_answers_pings_stays(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange, connect_in_memory(exchange, "ws://binance/ws") as connection:
        await trio.sleep(3600)
        await connection.send_message(request("LIST_SUBSCRIPTIONS"))
        assert await events(connection, 1) == [{"result": [], "id": 1}]


async def test_a_client_that_does_not_is_cut_after_a_minute(autojump_clock: MockClock) -> None:
    """trio-websocket reads no pings while its message queue is full, as it is for a client that takes no messages."""
    exchange = simulated()
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/ws/{NAME}") as connection:
        await trio.sleep(20 + 60 - 1)
        assert exchange.state()["connections"]["open"] == 1
        await trio.sleep(2)
        assert exchange.state()["connections"]["open"] == 0
        assert (await closed_with(connection))[0] == 1006


async def test_a_client_for_whom_too_much_piles_up_is_cut(autojump_clock: MockClock) -> None:
    exchange = simulated(most_unsent=20)
    async with running(exchange), connect_in_memory(exchange, "ws://binance/ws") as connection:
        session = next(iter(exchange._sessions))
        for _ in range(21):
            session.say("text")
        assert (await closed_with(connection))[0] == 1006


async def test_a_client_that_does_not_answer_a_close_frame_is_cut(autojump_clock: MockClock) -> None:
    exchange = simulated()
    async with running(exchange), connect_in_memory(exchange, f"ws://binance/ws/{NAME}") as connection:
        await trio.sleep(15)  # its reader stands still before a full queue
        exchange.add_fault(Drop())
        await trio.sleep(9)
        assert exchange.state()["connections"]["open"] == 1
        await trio.sleep(2)
        assert exchange.state()["connections"]["open"] == 0
        assert (await closed_with(connection))[0] in (1001, 1006)


async def test_a_ping_that_meets_a_close_harms_nobody(autojump_clock: MockClock) -> None:
    """trio-websocket's reader dies of a ping while it closes; here that is the exchange's."""
    async with running(simulated()) as exchange:
        for _ in range(5):
            async with connect_in_memory(exchange, "ws://binance/ws") as connection, trio.open_nursery() as nursery:
                for session in exchange._sessions:
                    session.end(1001)
                nursery.start_soon(ping, connection)
                await closed_with(connection)
        assert exchange.running


async def ping(connection: WebSocketConnection) -> None:
    with trio.move_on_after(1), suppress(ConnectionClosed):
        await connection.ping()


async def test_refusals_are_those_of_a_real_connection(autojump_clock: MockClock) -> None:
    exchange = simulated()
    with pytest.raises(HandshakeError):
        async with connect_in_memory(exchange, "ws://binance/ws"):
            pass
    async with running(exchange):
        exchange.add_fault(Refuse(status=503, seconds=30))
        with pytest.raises(ConnectionRejected) as error:
            async with connect_in_memory(exchange, "ws://binance/ws"):
                pass
        assert error.value.status_code == 503
        exchange.add_fault(Refuse(hang=True, seconds=100))
        await trio.sleep(31)
        with pytest.raises(ConnectionTimeout):
            async with connect_in_memory(exchange, "ws://binance/ws", connect_timeout=5):
                pass
        begin = trio.current_time()
        async with connect_in_memory(exchange, "ws://binance/ws", connect_timeout=100):
            assert trio.current_time() - begin == pytest.approx(64)


async def test_errors_of_its_user_come_out_as_they_are(autojump_clock: MockClock) -> None:
    async with running(simulated()) as exchange:
        with pytest.raises(KeyError, match="mine"):
            async with connect_in_memory(exchange, "ws://binance/ws"):
                raise KeyError("mine")
        with trio.move_on_after(5) as scope:
            async with connect_in_memory(exchange, "ws://binance/ws") as connection:
                await connection.get_message()
        assert scope.cancelled_caught
        assert exchange.state()["connections"]["open"] == 0


async def test_when_the_exchange_ends_its_connections_break(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        exchange = simulated()
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await exchange.run(task_status=task_status)

        await nursery.start(run)
        async with connect_in_memory(exchange, "ws://binance/ws") as connection:
            scope.cancel()
            assert (await closed_with(connection))[0] == 1006
        assert not exchange.running
