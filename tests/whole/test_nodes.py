"""Several nodes share a Redis: real processes that are killed, stopped, cut off, and come and go."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from candlesync.core.interval import Interval
from tests.whole.announced import hearing
from tests.whole.nodes import MINUTE, Deployment, Viewer, deploy
from tests.whole.proxy import run_proxy

TAKEOVER = 3.0
"""Seconds from the death of an owner, its lease included, until all is live again."""
HANDOVER = 1.5
"""Seconds for which nobody, or two, may hold a symbol's connection when it goes from one node to another at will."""
HOLD = 15.0
"""Seconds after which a node that cannot reach the store lets go of its connections."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT")


def viewers_of(deployment: Deployment, count: int, symbol: str = "BTCUSDT") -> list[Viewer]:
    """So many for each node, whose favourite it is; others are their next choice."""
    hosts = deployment.hosts
    turns = [hosts[turn:] + hosts[:turn] for turn in range(len(hosts))]
    return [Viewer(turns[number % len(hosts)], number, symbol) for number in range(count * len(hosts))]


@asynccontextmanager
async def watching(staying: Sequence[Viewer], wandering: Sequence[Viewer] = ()) -> AsyncIterator[None]:
    """People look at charts for as long as the block lasts, from when all have one."""
    async with trio.open_nursery() as nursery:
        for viewer in staying:
            nursery.start_soon(viewer.stays)
        for viewer in wandering:
            nursery.start_soon(viewer.wanders)
        with trio.fail_after(20):
            while not all(viewer.chart.candles for viewer in (*staying, *wandering)):  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.05)
        yield
        nursery.cancel_scope.cancel()


async def check(deployment: Deployment, staying: Sequence[Viewer], wandering: Sequence[Viewer] = ()) -> None:
    """All charts are true and whole, and nobody was told to load again."""
    async with trio.open_nursery() as nursery:
        for viewer in wandering:
            nursery.start_soon(viewer.catch_up, deployment.nodes[deployment.living[0]].host)
    await deployment.check([*staying, *wandering])
    codes = {code for viewer in (*staying, *wandering) for code in viewer.codes}
    assert codes <= {0, 1012}


def report(what: str, seconds: Sequence[float]) -> None:
    print(f"{what}: {min(seconds):.2f} to {max(seconds):.2f} s")  # noqa: T201 - for `pytest -s`, and of one that fails


async def test_an_owner_that_is_killed_is_replaced_within_its_lease_and_a_second() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        began = time.monotonic()
        staying, wandering = viewers_of(deployment, 5), viewers_of(deployment, 5)
        times = [(0.0, 0.0)]
        with hearing(deployment.redis) as announced:
            async with watching(staying, wandering):
                await trio.sleep(1)
                for _ in range(2):
                    owner = await deployment.owner()
                    dead = deployment.nodes[owner]
                    (survivor,) = set(deployment.nodes) - {owner}
                    await dead.kill()
                    killed = time.monotonic()
                    await trio.sleep(TAKEOVER + 0.1)
                    mine = [viewer for viewer in staying if viewer.hosts[0] != dead.host]
                    theirs = [viewer for viewer in staying if viewer.hosts[0] == dead.host]
                    for whose, some in (("survivor", mine), ("dead node", theirs)):
                        waits = [viewer.chart.first_news(killed + 0.05) - killed for viewer in some]
                        report(f"killed to the first news, charts of the {whose}", waits)
                        assert max(waits) <= TAKEOVER
                    assert await deployment.owner() == survivor
                    times.append((killed - began, killed - began + TAKEOVER))
                    await deployment.start(owner, "BTCUSDT")
                    await deployment.until_live()
                    await trio.sleep(1)
            await check(deployment, staying, wandering)
        # One connection at all times, but from a death to the takeover.
        spans = await deployment.not_one(began, time.monotonic())
        assert [span.connections for span in spans] == [0, 0]
        for span, (killed, until) in zip(spans, times[1:], strict=True):
            assert killed - 0.1 <= span.begin < span.end <= until
        assert announced.deaf == 0
        assert len(announced.check_one_writer()) == 3
        await deployment.check_stored()


async def test_all_nodes_die_and_those_that_come_go_on_where_they_were() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        staying, wandering = viewers_of(deployment, 2), viewers_of(deployment, 2)
        with hearing(deployment.redis) as announced:
            async with watching(staying, wandering):
                await trio.sleep(1)
                for name in ("a", "b"):
                    await deployment.nodes[name].kill()
                await trio.sleep(2)
                await deployment.start_all("b", "a")
                await trio.sleep(2)
            await check(deployment, staying, wandering)
        assert len({made.life for made in announced.commits}) == 1, "the store was there all the time"
        announced.check_one_writer()


async def test_an_owner_that_slept_too_long_cannot_commit_and_follows() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        staying, wandering = viewers_of(deployment, 5), viewers_of(deployment, 5)
        sleeper = await deployment.owner()
        (other,) = set(deployment.nodes) - {sleeper}
        process = deployment.nodes[sleeper].process
        with hearing(deployment.redis) as announced:
            async with watching(staying, wandering):
                await trio.sleep(1)
                process.send_signal(signal.SIGSTOP)
                stopped = time.monotonic()
                await trio.sleep(TAKEOVER + 0.5)
                assert (await deployment.owners(other))["BTCUSDT"] == other
                process.send_signal(signal.SIGCONT)
                woken = time.monotonic()
                await trio.sleep(2.5)
                assert await deployment.owner() == other
                assert (await deployment.ready(sleeper))["status"] == "ready"
                assert (await deployment.rest(sleeper)).headers["Candlesync-State"] == "live"
                mine = [viewer for viewer in staying if viewer.hosts[0] == deployment.nodes[other].host]
                waits = [viewer.chart.first_news(stopped + 0.05) - stopped for viewer in mine]
                report("stopped to the first news, charts of the other node", waits)
                assert max(waits) <= TAKEOVER
                waits = [viewer.chart.first_news(woken) - woken for viewer in staying if viewer not in mine]
                report("woken to the first news, its charts", waits)
                assert max(waits) <= 2
            await check(deployment, staying, wandering)
        assert announced.deaf == 0
        assert len(announced.check_one_writer()) == 2, "the sleeper, then the other, and nobody in between"
        # Two connections while one of their owners sleeps; a moment after it woke, one.
        spans = await deployment.not_one(stopped, time.monotonic())
        assert [span.connections for span in spans] == [2]
        assert spans[0].end <= woken - stopped + 1.5
        await deployment.check_stored()


async def test_symbols_spread_over_the_nodes_that_are_there() -> None:
    listed = [word for symbol in SYMBOLS for word in ("--symbol", symbol)]
    async with deploy(*listed, minute=2 * MINUTE) as deployment:
        await deployment.start("a", *SYMBOLS)
        await deployment.until_live(*SYMBOLS)
        assert await spread(deployment, 6) == {"a": 6}
        began = time.monotonic()
        hosts = deployment.hosts
        staying = [Viewer(hosts, number, symbol) for number, symbol in enumerate(SYMBOLS)]
        wandering: list[Viewer] = []
        with hearing(deployment.redis) as announced:
            async with watching(staying):
                await deployment.start("b", *SYMBOLS)
                assert await spread(deployment, 3, 3) == {"a": 3, "b": 3}
                await deployment.start("c", *SYMBOLS)
                assert await spread(deployment, 2, 2, 2) == {"a": 2, "b": 2, "c": 2}
                await deployment.until_live(*SYMBOLS)
                # People on the node that leaves, and people everywhere.
                hosts = [deployment.nodes[name].host for name in "bac"]
                leaving = [Viewer(hosts, number, symbol) for number, symbol in enumerate(SYMBOLS)]
                wandering = [Viewer(hosts, 10 + number, symbol) for number, symbol in enumerate(SYMBOLS)]
                async with watching(leaving, wandering):
                    await trio.sleep(2)
                    given_up = [symbol for symbol, owner in (await deployment.owners("a")).items() if owner == "b"]
                    left = time.monotonic()
                    status, seconds = await deployment.nodes["b"].end()
                    assert status == 0
                    report("the end of the node that left", [seconds])
                    assert seconds < 5
                    assert await spread(deployment, 3, 3) == {"a": 3, "c": 3}
                    await trio.sleep(2)
                    for viewer in leaving:
                        assert viewer.codes[1012] == 1, viewer.codes
            staying += leaving
            await check(deployment, staying, wandering)
        for symbol in SYMBOLS:
            announced.check_one_writer(symbol)
            spans = await deployment.not_one(began, time.monotonic(), symbol)
            assert all(span.connections == 0 and span.end - span.begin <= HANDOVER for span in spans), spans
        gone = [
            span.end - span.begin
            for symbol in given_up
            for span in await deployment.not_one(left, time.monotonic(), symbol)
        ]
        report("without a connection after a node left", gone)
        waits = [
            viewer.chart.first_news(left + 0.2) - left
            for viewer in staying
            if viewer.symbol in given_up and viewer not in leaving
        ]
        report("left to the first news", waits)
        assert max(waits) <= HANDOVER


async def spread(deployment: Deployment, *counts: int) -> dict[str, int]:
    """How many symbols each node owns, once that is as expected, and all nodes see it so."""
    found: dict[str, int] = {}
    with trio.move_on_after(10):
        while True:
            views = [await deployment.owners(name) for name in deployment.living]
            owners = list(views[0].values())
            found = {name: owners.count(name) for name in sorted(set(owners))}
            if sorted(found.values()) == sorted(counts) and all(view == views[0] for view in views):
                break
            await trio.sleep(0.05)
    return found


async def test_what_only_a_followers_clients_want_is_served_by_the_owner() -> None:
    async with deploy() as deployment:
        await deployment.start("a", "BTCUSDT")
        await deployment.until_live()
        await deployment.start("b", "BTCUSDT", "--interval", "1m", "--interval", "15m")
        await deployment.until_live()
        assert await deployment.owner() == "a"
        hosts = deployment.hosts
        hosts_of_b = hosts[::-1]
        # Pinned on the follower alone, asked of the follower alone, and a symbol that nobody pinned.
        pinned = Viewer(hosts_of_b, 1, "BTCUSDT", Interval.M15)
        asked = Viewer(hosts_of_b, 2, "BTCUSDT", Interval.M5)
        new = [Viewer(hosts_of_b, 3, "SOLUSDT"), Viewer(hosts, 4, "SOLUSDT")]
        wandering = [Viewer(hosts, 5, "BTCUSDT", Interval.M5), Viewer(hosts, 6, "SOLUSDT")]
        began = time.monotonic()
        async with watching([pinned, asked, *new], wandering):
            await deployment.until_live(interval="5m")
            await deployment.until_live("SOLUSDT")
            await deployment.until_live(interval="15m")
            assert await spread(deployment, 1, 1) == {"a": 1, "b": 1}, "each has its share"
            await trio.sleep(3)
            for viewer in (pinned, asked, *new):
                assert viewer.chart.messages > 20, viewer.symbol
        await check(deployment, [pinned, asked, *new], wandering)
        for symbol in ("BTCUSDT", "SOLUSDT"):
            assert max(span.connections for span in await deployment.connections(symbol)) == 1
        # It may have gone to the other node when that got a share of the symbols.
        assert all(span.end - span.begin <= HANDOVER for span in await deployment.not_one(began, time.monotonic()))


async def test_a_node_that_is_cut_off_from_the_store_alone_lets_go_in_the_end_and_follows() -> None:
    async with deploy() as deployment, run_proxy(deployment.redis.port) as line:
        await deployment.start("a", "BTCUSDT", store=line.url)
        await deployment.until_live()
        await deployment.start("b", "BTCUSDT")
        await deployment.until_live()
        assert await deployment.owner() == "a"
        staying = viewers_of(deployment, 3)
        with hearing(deployment.redis) as announced:
            async with watching(staying):
                await trio.sleep(1)
                line.cut()
                cut = time.monotonic()
                await trio.sleep(TAKEOVER + 1)
                theirs = [viewer for viewer in staying if viewer.hosts[0] == deployment.nodes["b"].host]
                waits = [viewer.chart.first_news(cut + 0.1) - cut for viewer in theirs]
                report("cut off to the first news, charts of the other node", waits)
                assert max(waits) <= TAKEOVER
                assert (await deployment.owners("b"))["BTCUSDT"] == "b"
                while time.monotonic() < cut + HOLD + 2:
                    answer = await deployment.rest("a")
                    assert answer.status_code == 200
                    assert answer.headers["Candlesync-State"] in ("syncing", "stale")
                    await trio.sleep(0.2)
                line.mend()
                mended = time.monotonic()
                await deployment.until_live()
                report("mended to live", [time.monotonic() - mended])
                await trio.sleep(1)
                assert await deployment.owner() == "b"
            await check(deployment, staying)
        assert len(announced.check_one_writer()) == 2
        spans = await deployment.not_one(cut, time.monotonic())
        assert [span.connections for span in spans] == [2]
        report("until the cut off node let go of its connection", [spans[0].end])
        assert spans[0].end <= HOLD + 1
