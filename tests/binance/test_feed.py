# ruff: noqa: ARG002 - a hook and a transport have the arguments that they have
"""A feed against a small Binance in memory, in virtual time; at the end, against real sockets."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing
import trio_websocket

from candlesync.binance.feed import Feed
from candlesync.binance.hosts import Hosts
from candlesync.binance.pace import ConnectionPace
from candlesync.binance.parse import Kline, parse_frame
from candlesync.binance.stream import StreamSettings, stream_name
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.errors import TooMany
from candlesync.websocket import Connect, open_websocket
from tests.binance.connections import (
    BTC,
    BTC5,
    ETH,
    SETTINGS,
    SHUTDOWN,
    UNRESOLVED,
    Clock,
    Exchange,
    Recorder,
    Run,
    Serve,
    Step,
    babbling,
    closing,
    deaf,
    granting,
    ignoring,
    kline,
    many,
    refusing,
    running,
    silent,
)
from tests.builders import shared_data

# Following and frames


async def test_frames_reach_the_sink_digit_for_digit(autojump_clock: Clock) -> None:
    async with running(BTC, BTC5) as run:
        assert run.served.streams == ["btcusdt@kline_1m", "btcusdt@kline_5m"]
        await run.served.send(kline(BTC, trades=1), kline(BTC5), kline(BTC, trades=2, closed=True))
        candles = [told.detail for told in run.sink.told if told.kind == "frame" and told.series == BTC]
        assert [(candle.trades, candle.closed) for candle in candles] == [(1, False), (2, True)]
        assert candles[0].close == "37012.32000000"
        assert run.sink.kinds(BTC5) == ["connected", "frame"]
        assert run.served.requests == []
    assert run.sink.reasons() == ["stopped", "stopped"]


async def test_without_a_series_there_is_no_connection(autojump_clock: Clock) -> None:
    async with running() as run:
        await trio.sleep(3600)
        assert run.exchange.attempts == []
        run.feed.follow(BTC)
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.kinds(BTC) == ["connected"]
        run.feed.drop(BTC)
        assert run.sink.kinds(BTC) == ["connected", "lost"]  # before drop returned
        await trio.testing.wait_all_tasks_blocked()
        assert run.exchange.halves[0].closed
        assert run.served.requests == []
        await trio.sleep(3600)
        assert len(run.exchange.attempts) == 1
        assert run.feed.statistics().failures == 0
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        assert run.served.streams == ["ethusdt@kline_1m"]


async def test_follow_and_drop_on_a_live_connection(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.feed.follow(ETH)
        run.feed.follow(BTC5)
        assert run.sink.kinds(ETH) == []
        await trio.testing.wait_all_tasks_blocked()
        _, asked = run.served.requests[0]
        assert asked == {"method": "SUBSCRIBE", "params": ["btcusdt@kline_5m", "ethusdt@kline_1m"], "id": 1}
        await run.served.send(kline(ETH))
        assert run.sink.kinds(ETH) == ["connected", "frame"]

        run.feed.drop(ETH)
        assert run.sink.kinds(ETH)[-1] == "lost"
        assert run.sink.reasons() == ["dropped"]
        await run.served.send(kline(ETH))  # was on its way
        _, asked = run.served.requests[1]
        assert asked == {"method": "UNSUBSCRIBE", "params": ["ethusdt@kline_1m"], "id": 2}
        assert run.sink.kinds(ETH)[-1] == "lost"
        assert run.feed.statistics().unwanted == 1

        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        await run.served.send(kline(ETH))
        assert run.sink.kinds(ETH) == ["connected", "frame", "lost", "connected", "frame"]
        assert run.sink.kinds(BTC) == ["connected"]  # and never lost
        assert len(run.exchange.attempts) == 1


async def test_dropped_and_followed_at_once_is_told_as_lost_and_connected(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        run.feed.drop(ETH)
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.kinds(ETH) == ["connected", "lost", "connected"]
        assert run.served.requests == []  # the stream was never given up


async def test_dropped_before_its_acknowledgement_a_series_is_never_told(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange.answer = ignoring
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        run.feed.drop(ETH)
        run.exchange.answer = granting
        await run.served.send('{"result":null,"id":1}', kline(ETH))
        assert [asked["method"] for _, asked in run.served.requests] == ["SUBSCRIBE", "UNSUBSCRIBE"]
        assert run.sink.kinds(ETH) == []
        assert len(run.exchange.attempts) == 1


async def test_frames_before_the_acknowledgement_are_not_told(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange.answer = ignoring
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        await run.served.send(kline(ETH, trades=1), '{"result":null,"id":1}', kline(ETH, trades=2))
        assert run.sink.kinds(ETH) == ["connected", "frame"]
        assert run.feed.statistics().unwanted == 1


async def test_a_connection_carries_1024_streams_and_no_more(autojump_clock: Clock) -> None:
    series = many(1024)
    async with running(*series) as run:
        with pytest.raises(TooMany, match="1024"):
            run.feed.follow(BTC)
        run.feed.follow(series[0])  # not one more
        await trio.sleep(30)
        assert len(run.served.streams) == 100
        asked = [asked for _, asked in run.served.requests]
        assert {asked["method"] for asked in asked} == {"SUBSCRIBE"}
        assert len(asked) < 12
        assert all(len(json.dumps(one, separators=(",", ":"))) <= 4096 for one in asked)
        carried = run.served.streams + [name for one in asked for name in one["params"]]
        assert sorted(carried) == sorted(map(stream_name, series))
        assert sorted(run.sink.live, key=str) == sorted(series, key=str)
        assert run.feed.statistics().streams == run.feed.statistics().followed == 1024
        run.feed.drop(series[0])
        run.feed.follow(BTC)
        await trio.sleep(5)
        assert [asked["method"] for _, asked in run.served.requests[-2:]] == ["UNSUBSCRIBE", "SUBSCRIBE"]
        assert BTC in run.sink.live
    assert len(run.exchange.attempts) == 1


async def test_never_more_than_three_requests_in_a_second(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        for series in many(200):
            run.feed.follow(series)
            await trio.sleep(0.05)
        await trio.sleep(2)
        times = [at for at, _ in run.served.requests]
        assert len(times) >= 25  # and all the while as many as allowed
        assert all(beyond - first > 0.999999 for first, beyond in zip(times, times[3:], strict=False))
        assert len(run.sink.live) == 201


# Acknowledgements that do not come


async def test_a_server_that_knows_no_subscribe_still_works(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange.answer = ignoring
        run.feed.follow(ETH)
        await trio.sleep(4.9)
        assert len(run.exchange.attempts) == 1
        await trio.sleep(1)
        assert run.sink.reasons() == ["SUBSCRIBE was not answered within 5 s"]
        assert run.served.streams == ["btcusdt@kline_1m", "ethusdt@kline_1m"]
        assert run.sink.live == {BTC, ETH}
        await trio.sleep(3600)
        assert len(run.exchange.attempts) == 2


async def test_for_such_a_server_all_streams_stand_in_the_url(autojump_clock: Clock) -> None:
    series = many(150)
    async with running(BTC) as run:
        run.exchange.answer = ignoring
        for one in series:
            run.feed.follow(one)
        await trio.sleep(3600)
        assert len(run.served.streams) == 151
        assert len(run.exchange.attempts) == 2


async def test_a_url_with_all_streams_is_given_up_when_it_is_refused(autojump_clock: Clock) -> None:
    async with running(*many(150), script=[None, refusing(414)], answer=ignoring) as run:
        run.exchange.answer = granting
        await trio.sleep(8)
        assert run.sink.reasons()[0] == "SUBSCRIBE was not answered within 5 s"
        assert run.feed.statistics().last_failure == "the connection was refused (HTTP 414)"
        assert len(run.exchange.attempts) == 3
        assert len(run.served.streams) == 100
        assert len(run.sink.live) == 150


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": 2, "msg": "Invalid request: unknown stream"}, "id": 1},
        {"code": 3, "msg": "Invalid JSON", "id": None},
    ],
    ids=["with-its-id", "without-id"],
)
async def test_a_refused_subscription_makes_the_connection_anew(answer: dict[str, Any], autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange.answer = lambda _: answer
        run.feed.follow(ETH)
        await trio.sleep(1)
        assert run.sink.reasons()[0].startswith("SUBSCRIBE was refused: ")
        assert run.served.streams == ["btcusdt@kline_1m", "ethusdt@kline_1m"]
        assert run.sink.live == {BTC, ETH}
        assert run.served.requests == []


async def test_a_server_that_closes_upon_a_subscription_gets_the_whole_url(autojump_clock: Clock) -> None:
    async with running(*many(120)) as run:
        assert len(run.served.streams) == 100
        await run.served.cut()  # with the SUBSCRIBE acknowledged: nothing is learnt from this
        await trio.sleep(1)
        assert len(run.served.streams) == 100
        run.exchange.answer = ignoring
        run.feed.follow(BTC)
        await trio.testing.wait_all_tasks_blocked()
        await run.served.cut()
        await trio.sleep(2)
        assert len(run.served.streams) == 121


async def test_answers_that_nobody_asked_for_change_nothing(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        answers = ['{"result":null,"id":9}', '{"error":{"code":2,"msg":"x"},"id":9}', '{"code":2,"msg":"x"}']
        await run.served.send(*answers)
        assert run.feed.statistics().unwanted == 3
        run.exchange.answer = ignoring
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        await run.served.send(*answers[:2], '{"result":null,"id":null}')
        assert run.sink.live == {BTC}
        await run.served.send('{"result":null,"id":1}')
        assert run.sink.live == {BTC, ETH}
        assert len(run.exchange.attempts) == 1


# Failing to connect


@pytest.mark.parametrize("step", [UNRESOLVED, silent], ids=["name-lookup", "handshake"])
async def test_connecting_takes_at_most_ten_seconds(step: Serve, autojump_clock: Clock) -> None:
    async with running(BTC, script=[step]) as run:
        await trio.sleep(9.9)
        assert len(run.exchange.attempts) == 1
        await trio.sleep(0.5)
        assert len(run.exchange.attempts) == 2
        assert all(half.closed for half in run.exchange.halves[:-1])
        assert run.sink.kinds(BTC) == ["connected"]
        statistics = run.feed.statistics()
        assert (statistics.connects, statistics.failures) == (1, 1)
        assert statistics.last_failure == "not connected within 10 s"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (OSError("no such host"), "no such host"),
        (refusing(503), "the connection was refused (HTTP 503)"),
        (closing, "closed by the other side during the handshake"),
        (babbling, "the answer is no WebSocket handshake"),
    ],
    ids=["network", "503", "closed", "not-http"],
)
async def test_attempts_that_fail_come_ever_slower_up_to_a_cap(step: Step, reason: str, autojump_clock: Clock) -> None:
    async with running(BTC, script=[step] * 12) as run:
        await trio.sleep(120)
        longest = [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10, 10, 10, 10]
        attempts = run.exchange.attempts
        assert len(attempts) == 13
        for most, first, second in zip(longest, attempts, attempts[1:], strict=False):
            assert most / 2 <= second - first <= most
        assert run.sink.kinds(BTC) == ["connected"]
        assert run.feed.statistics().failures == 12
        assert run.feed.statistics().last_failure == reason


async def test_the_backoff_starts_again_after_a_settled_connection(autojump_clock: Clock) -> None:
    async with running(BTC, script=[OSError("down")] * 6) as run:
        await trio.sleep(30)
        assert len(run.exchange.served) == 1
        await run.served.send(kline(BTC))
        await run.served.cut()
        await trio.sleep(0.25)
        assert len(run.exchange.served) == 2


@pytest.mark.parametrize(("lasts", "brings_a_candle"), [(1.0, True), (30.0, False)], ids=["short", "empty"])
async def test_a_connection_that_never_settles_does_not_reset_the_backoff(
    lasts: float, brings_a_candle: bool, autojump_clock: Clock
) -> None:
    async with running(BTC) as run:
        for _ in range(8):
            await trio.sleep(lasts)
            if brings_a_candle:
                await run.served.send(kline(BTC))
            else:
                await run.served.send('{"result":null,"id":9}')
            served = len(run.exchange.served)
            await run.served.cut()
            while len(run.exchange.served) == served:  # noqa: ASYNC110 - in virtual time this costs nothing
                await trio.sleep(0.01)
        pauses = [
            first - second
            for first, second in zip(run.sink.times("connected")[1:], run.sink.times("lost"), strict=True)
        ]
        assert 4 <= pauses[5] <= 8
        assert all(5 <= pause <= 10.1 for pause in pauses[6:])


async def test_many_feeds_keep_to_the_pace_together(autojump_clock: Clock) -> None:
    settings = replace(SETTINGS, backoff_cap=1.0)
    pace = ConnectionPace(settings)
    attempts: list[float] = []

    async def down(host: str, port: int, tls: bool) -> trio.abc.Stream:
        attempts.append(trio.current_time())
        raise OSError("down")

    with trio.move_on_after(1000):
        async with trio.open_nursery() as nursery:
            for number in range(300):
                connect = partial(open_websocket, open_transport=down)
                feed = Feed(settings, pace, Recorder(), name=str(number), connect=connect)
                feed.follow(BTC)
                nursery.start_soon(feed.run)
    assert len(attempts) == 1000  # at 0, 300, 600 and 900 s: none of the turns was wasted
    assert all(beyond - first >= 300 for first, beyond in zip(attempts, attempts[250:], strict=False))


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        (refusing(429, (b"Retry-After", b"60")), 60),
        (refusing(418, (b"Retry-After", b"3600")), 3600),
        (refusing(418), 120),
    ],
    ids=["429", "418", "418-without-a-time"],
)
async def test_no_feed_connects_while_binance_forbids_it(step: Serve, seconds: float, autojump_clock: Clock) -> None:
    pace = ConnectionPace(SETTINGS)
    async with AsyncExitStack() as stack:
        refused = await stack.enter_async_context(running(BTC, script=[step], pace=pace))
        await trio.sleep(1)
        other = await stack.enter_async_context(running(ETH, pace=pace))
        await trio.sleep(seconds - 1.5)
        assert len(refused.exchange.attempts) == 1
        assert other.exchange.attempts == []
        await trio.sleep(1)
        assert refused.sink.live == {BTC}
        assert other.sink.live == {ETH}


@pytest.mark.parametrize(("status", "words"), [(403, "firewall"), (451, "does not serve this location")])
async def test_a_place_where_binance_is_blocked_is_asked_rarely(status: int, words: str, autojump_clock: Clock) -> None:
    pace = ConnectionPace(SETTINGS)
    with structlog.testing.capture_logs() as logs:
        async with running(BTC, script=[refusing(status)] * 1000, pace=pace) as run:
            await trio.sleep(3600)
            assert 50 <= len(run.exchange.attempts) <= 60
            assert words in str(run.feed.statistics().last_failure)
            assert pace.statistics().held_for == 0  # only this feed waits
    assert words in logs[0]["reason"]


async def test_after_451_the_market_data_host_is_connected_to_by_all_feeds(autojump_clock: Clock) -> None:
    asked: list[tuple[float, str]] = []
    settings = StreamSettings()

    async with trio.open_nursery() as nursery:
        served, refused = Exchange(nursery, [], granting), Exchange(nursery, [refusing(451)] * 9, granting)

        async def transport(host: str, port: int, tls: bool) -> trio.abc.Stream:
            asked.append((trio.current_time(), host))
            there = served if host == "data-stream.binance.vision" else refused
            return await there.transport(host, port, tls)

        sink, pace, hosts = Recorder(), ConnectionPace(settings), Hosts(settings.urls)
        connect = partial(open_websocket, open_transport=transport)
        with structlog.testing.capture_logs() as logs:
            for series in (BTC, ETH):
                feed = Feed(settings, pace, sink, name=series.symbol, connect=connect, hosts=hosts)
                feed.follow(series)
                nursery.start_soon(feed.run)
            await trio.sleep(1)
        assert sink.live == {BTC, ETH}
        assert all(moment == asked[0][0] for moment, _ in asked)  # at once
        assert sorted(host for _, host in asked) == ["data-stream.binance.vision"] * 2 + ["stream.binance.com"] * 2
        assert [log["url"] for log in logs if "location refused" in log["event"]] == [
            "wss://data-stream.binance.vision"
        ]
        await served.served[0].cut()  # from now on it is the first that is asked
        await trio.sleep(1)
        assert sink.live == {BTC, ETH}
        assert [host for _, host in asked[4:]] == ["data-stream.binance.vision"]
        nursery.cancel_scope.cancel()


# The end of a connection


async def test_a_closed_connection_is_lost_and_made_anew(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        await run.served.socket.aclose(1001, "going away")
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.live == set()
        assert run.feed.statistics().streams == 0
        assert run.sink.reasons() == ["closed (code 1001 GOING_AWAY: 'going away')"] * 2
        await trio.sleep(1)
        assert run.sink.live == {BTC, ETH}
        assert run.feed.statistics().connects == 2


async def test_what_came_before_the_close_is_told(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        for number in range(50):
            await run.served.socket.send_message(kline(BTC, trades=number))
        await run.served.socket.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.kinds(BTC) == ["connected"] + ["frame"] * 50 + ["lost"]


class ClosedBehind:
    """A connection that has ended, with frames that nobody has read yet."""

    def __init__(self, frames: int) -> None:
        self._frames = frames

    async def get_message(self) -> str:
        await trio.sleep(1)
        self._frames -= 1
        if self._frames < 0:
            raise trio_websocket.ConnectionClosed(None)
        return kline(BTC)

    async def send_message(self, message: str) -> None:
        raise trio_websocket.ConnectionClosed(None)

    async def ping(self) -> None:
        raise trio_websocket.ConnectionClosed(None)


@pytest.mark.parametrize("sends", ["ping", "request"])
async def test_a_send_that_fails_does_not_cost_what_came_before(sends: str, autojump_clock: Clock) -> None:
    @asynccontextmanager
    async def connect(url: str, **options: int) -> AsyncIterator[ClosedBehind]:
        yield ClosedBehind(4)

    settings = replace(SETTINGS, ping_interval=1.5 if sends == "ping" else 100.0, backoff_first=50.0, backoff_cap=50.0)
    sink = Recorder()
    feed = Feed(settings, ConnectionPace(settings), sink, name="test", connect=connect)
    feed.follow(BTC)
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            await trio.sleep(1.5)
            if sends == "request":
                feed.follow(ETH)
    assert sink.kinds(BTC) == ["connected"] + ["frame"] * 4 + ["lost"]
    assert sink.reasons() == ["closed"]


async def test_a_half_closed_connection_is_lost(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        stream = run.served.stream
        assert isinstance(stream, trio.StapledStream)
        await stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.reasons() == ["closed (code 1006 ABNORMAL_CLOSURE)"]
        assert run.exchange.halves[0].closed


async def test_an_unanswered_ping_is_the_death_of_a_connection(autojump_clock: Clock) -> None:
    async with running(BTC, script=[deaf]) as run:
        await trio.sleep(60)
        assert run.sink.times("lost") == [25.0]  # 15 s to the ping, 10 s for its answer
        assert run.sink.reasons() == ["a ping was not answered within 10 s"]
        assert run.sink.live == {BTC}
        assert run.exchange.halves[0].closed


async def test_silence_is_not_death(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        await trio.sleep(3600)
        assert len(run.exchange.attempts) == 1


async def test_pings_of_the_server_are_answered_amid_frames(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        for _ in range(3 * SETTINGS.message_queue_size):
            await run.served.socket.send_message(kline(BTC))
        with trio.fail_after(1):
            await run.served.socket.ping()
        assert run.feed.statistics().frames == 3 * SETTINGS.message_queue_size


async def test_reconnect_makes_the_connection_anew(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        await run.served.send(kline(BTC))
        await trio.sleep(20)
        run.feed.reconnect("silent for 20 s")
        run.feed.reconnect("asked twice")
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.reasons() == ["silent for 20 s"]
        assert run.exchange.attempts == [0, 20]  # the connection had settled: no pause
        assert run.feed.statistics().last_failure == "silent for 20 s"
        for _ in range(6):
            run.feed.reconnect("silent from the start")
            await trio.sleep(10)
        assert run.exchange.attempts[-1] - run.exchange.attempts[-2] > 10  # one that never settles is not spared


async def test_reconnect_without_a_connection_does_nothing(autojump_clock: Clock) -> None:
    async with running(BTC, script=[silent]) as run:
        run.feed.reconnect("no")
        await trio.sleep(9)
        assert len(run.exchange.attempts) == 1


async def test_a_turn_that_was_not_used_is_not_used_later(autojump_clock: Clock) -> None:
    pace = ConnectionPace(SETTINGS)
    async with running(BTC, pace=pace) as run:
        await run.served.send(SHUTDOWN)  # before it has settled: there is a pause now
        run.feed.drop(BTC)
        await trio.sleep(1000)
        assert pace.statistics().used == 0
        run.feed.follow(BTC)
        await trio.testing.wait_all_tasks_blocked()
        assert run.exchange.attempts == [0, 1000]
        assert pace.statistics().used == 1


async def test_a_feed_that_is_not_followed_any_more_does_not_connect(autojump_clock: Clock) -> None:
    pace = ConnectionPace(SETTINGS)
    pace.hold(60)
    async with running(BTC, pace=pace) as run:
        await trio.sleep(30)
        run.feed.drop(BTC)
        await trio.sleep(60)
        assert run.exchange.attempts == []


async def test_a_server_that_shuts_down_at_each_connect_is_not_stormed(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        for _ in range(300):
            if run.sink.live:
                await run.served.send(SHUTDOWN)
            await trio.sleep(1)
        assert len(run.exchange.attempts) < 50


# Frames that are not what Binance documents


async def test_garbage_costs_nothing_but_itself(autojump_clock: Clock) -> None:
    garbage: list[str | bytes] = [
        "",
        "not json",
        "[]",
        '{"e":"kline"}',
        "\x00",
        kline(BTC).replace("37012", "nan"),
        kline(BTC).encode(),
    ]
    with structlog.testing.capture_logs() as logs:
        async with running(BTC) as run:
            for number, frame in enumerate(garbage):
                await run.served.send(frame, kline(BTC, trades=number))
            assert run.sink.kinds(BTC) == ["connected"] + ["frame"] * len(garbage)
            statistics = run.feed.statistics()
            assert statistics.frames == 2 * len(garbage)
            assert statistics.unreadable == len(garbage)
            assert statistics.connected
            await trio.sleep(SETTINGS.log_period)
            await run.served.send("x" * 10_000)
    lines = [line for line in logs if line["event"] == "unreadable frame"]
    assert [line["suppressed"] for line in lines] == [0, len(garbage) - 1]
    assert len(lines[1]["frame"]) == 200


async def test_candles_and_events_that_nobody_follows_are_counted(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        await run.served.send(kline(ETH), kline(BTC5), '{"e":"aggTrade","E":1,"s":"BTCUSDT"}', kline(BTC))
        assert run.feed.statistics().unwanted == 3
        assert run.feed.statistics().unreadable == 0
        assert run.sink.kinds(BTC) == ["connected", "frame"]


async def test_a_message_beyond_the_limit_ends_the_connection(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        await run.served.send("x" * (SETTINGS.max_message_size + 1))
        assert "1009" in run.sink.reasons()[0]
        await trio.sleep(1)
        assert run.sink.live == {BTC}


# Sinks and cancellation


class Broken(Recorder):
    """A sink with a bug, in one of its calls."""

    def __init__(self, call: str, error: Exception) -> None:
        super().__init__()
        self._call = call
        self._error = error

    def _note(self, kind: str, series: Series, detail: object = None) -> None:
        super()._note(kind, series, detail)
        if kind == self._call:
            raise self._error


@pytest.mark.parametrize("call", ["connected", "frame", "lost"])
@pytest.mark.parametrize(
    "error",
    # Some of these also mean the end of a connection: they must not be taken for it.
    [LookupError("ours"), OSError("ours"), trio.BrokenResourceError("ours"), trio_websocket.ConnectionClosed(None)],
    ids=lambda error: type(error).__name__,
)
async def test_a_sink_that_raises_takes_its_feed_down(call: str, error: Exception, autojump_clock: Clock) -> None:
    sink = Broken(call, error)
    async with trio.open_nursery() as servers:
        exchange = Exchange(servers, (), granting)
        connect = partial(open_websocket, open_transport=exchange.transport)
        feed = Feed(SETTINGS, ConnectionPace(SETTINGS), sink, name="test", connect=connect)
        feed.follow(BTC)
        with pytest.RaisesGroup(type(error), flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed.run)
                await trio.testing.wait_all_tasks_blocked()
                await exchange.served[0].send(kline(BTC))
                await exchange.served[0].cut()
                await trio.sleep(60)
        assert exchange.halves[0].closed
        assert len(exchange.attempts) == 1
        assert sink.live == set()
        servers.cancel_scope.cancel()


async def test_a_sink_may_call_its_feed_back(autojump_clock: Clock) -> None:
    class Meddling(Recorder):
        def stream_connected(self, series: Series) -> None:
            super().stream_connected(series)
            run.feed.drop(ETH)

        def stream_frame(self, series: Series, candle: Candle) -> None:
            super().stream_frame(series, candle)
            run.feed.drop(BTC)
            run.feed.follow(BTC)
            run.feed.reconnect("meddling")

    async with running() as run:
        sink = run.feed._sink = Meddling()
        run.sink = sink
        run.feed.follow(BTC)
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        assert sink.kinds(ETH) == []  # dropped while BTC was told: it is after BTC
        await run.served.send(kline(BTC))
        assert sink.kinds(BTC) == ["connected", "frame", "lost"]
        await trio.sleep(1)
        assert sink.kinds(BTC) == ["connected", "frame", "lost", "connected"]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope after a number of steps of any task: in the end, at each await of a story."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._scope.cancel()


async def story(run: Run) -> None:
    """A bit of everything that a feed does."""
    await trio.sleep(1)
    await run.served.send(kline(BTC), "garbage")
    run.feed.follow(ETH)
    await trio.sleep(16)  # and a ping
    first = run.served
    await first.send(SHUTDOWN)
    run.feed.drop(ETH)
    for served in (first, run.served):
        await served.send(kline(BTC, trades=2))
    await trio.sleep(1)  # the other one has taken over
    run.feed.follow(ETH)
    await trio.sleep(10)
    await run.served.send(SHUTDOWN)
    await trio.sleep(5.1)  # nothing is shown: both are asked for an answer
    await run.served.send(SHUTDOWN)
    await trio.sleep(1)
    run.feed.reconnect("story")  # before another one could take over
    await trio.sleep(2)
    await run.served.cut()
    await trio.sleep(2)


async def test_cancelled_at_any_await_it_leaves_nothing_open(autojump_clock: Clock) -> None:
    finished = False
    steps = 0
    while not finished:
        steps += 1
        async with trio.open_nursery() as servers:
            run = Run(Exchange(servers, [refusing(503)], granting), SETTINGS, ConnectionPace(SETTINGS))
            run.feed.follow(BTC)
            with trio.CancelScope() as scope:
                instrument = CancelAt(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run.feed.run)
                    await story(run)
                    finished = True
                    nursery.cancel_scope.cancel()
            trio.lowlevel.remove_instrument(instrument)
            assert all(half.closed for half in run.exchange.halves)
            assert run.sink.live == set()
            assert finished or scope.cancelled_caught
            servers.cancel_scope.cancel()
    assert steps > 100
    assert len(run.exchange.halves) == 6
    assert run.feed.statistics().renewals == 2


# Real input, real sockets


@pytest.fixture
def recorded() -> list[str]:
    """Frames as Binance sent them, raw and combined; kline and aggTrade."""
    folder = shared_data() / "frames"
    raw = (folder / "btcusdt_kline_1m_20211113.jsonl").read_text().splitlines()
    (combined,) = folder.glob("BINANCE-*.txt.gz")
    with gzip.open(combined, "rt") as lines:
        return raw + [line.partition(": ")[2].strip() for line in lines if not line.startswith("wss:")]


async def test_recorded_frames_pass_unchanged(recorded: list[str], autojump_clock: Clock) -> None:
    dot = Series("DOTUSDT", Interval.M1)
    expected = [frame for frame in map(parse_frame, recorded) if isinstance(frame, Kline)]
    followed = [(frame.series, frame.candle) for frame in expected if frame.series != dot]
    assert len(followed) > 151
    async with running(BTC, ETH) as run:
        for frame in recorded:
            await run.served.socket.send_message(frame)
        await trio.testing.wait_all_tasks_blocked()
        assert [(told.series, told.detail) for told in run.sink.told if told.kind == "frame"] == followed
        statistics = run.feed.statistics()
        assert statistics.frames == len(recorded)
        assert statistics.unreadable == 0
        assert statistics.unwanted == len(recorded) - len(followed)
    closes = [candle for series, candle in followed if series == BTC and candle.closed and candle.open_time > 1.63e12]
    assert len(closes) == 5


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_over_real_sockets_with_drops_and_refusals() -> None:
    settings = StreamSettings(backoff_first=0.01, backoff_cap=0.05, settled_after=0.0)
    paths: list[str] = []

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        paths.append(request.path)
        if len(paths) == 2:
            await request.reject(503, body=b"<html>busy</html>")
            return
        socket = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            await socket.send_message(kline(BTC, trades=len(paths)))
            if len(paths) > 3:
                await socket.send_message(json.dumps(granting(json.loads(await socket.get_message()))))
                await socket.send_message(kline(ETH))
                await socket.get_message()

    before = open_files()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        settings = replace(settings, stream_url=f"ws://127.0.0.1:{server.port}/prefix/")
        sink = Recorder()
        feed = Feed(settings, ConnectionPace(settings), sink, name="real")
        feed.follow(BTC)
        with trio.fail_after(10):
            async with trio.open_nursery() as feeds:
                feeds.start_soon(feed.run)
                while len(paths) < 4:  # noqa: ASYNC110 - a handful of times
                    await trio.sleep(0.01)
                feed.follow(ETH)
                while "frame" not in sink.kinds(ETH):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                feeds.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert set(paths) == {"/prefix/stream?streams=btcusdt@kline_1m"}
    trades = [told.detail.trades for told in sink.told if told.kind == "frame" and told.series == BTC]
    assert trades == [1, 3, 4]
    assert sink.kinds(BTC) == ["connected", "frame", "lost"] * 3
    assert sink.kinds(ETH) == ["connected", "frame", "lost"]
    assert open_files() == before


@pytest.mark.parametrize("connect", [open_websocket, trio_websocket.open_websocket_url], ids=["ours", "trio-websocket"])
async def test_whatever_has_the_shape_of_trio_websocket_connects(connect: Connect) -> None:
    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message(kline(BTC))
        with suppress(trio_websocket.ConnectionClosed):
            await socket.get_message()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        settings = StreamSettings(stream_url=f"ws://127.0.0.1:{server.port}")
        sink = Recorder()
        feed = Feed(settings, ConnectionPace(settings), sink, name="real", connect=connect)
        feed.follow(BTC)
        with trio.fail_after(10):
            async with trio.open_nursery() as feeds:
                feeds.start_soon(feed.run)
                while "frame" not in sink.kinds(BTC):  # noqa: ASYNC110 - a handful of times
                    await trio.sleep(0.01)
                feeds.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert sink.kinds(BTC) == ["connected", "frame", "lost"]
