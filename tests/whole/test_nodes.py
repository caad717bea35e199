"""Several nodes share a Redis: real processes that are killed, stopped, cut off, and come and go."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from candlesync.core.interval import Interval
from tests.whole.announced import hearing
from tests.whole.nodes import MINUTE, Deployment, Viewer, deploy
from tests.whole.programs import PATIENCE
from tests.whole.proxy import run_proxy
from tests.whole.short_hold import HOLD

TAKEOVER = 3.0
"""Seconds from the death of an owner, its lease included, until all is live again."""
HANDOVER = 1.5
"""Seconds for which nobody, or two, may hold a symbol's connection when it goes from one node to another at will."""
STILL = 0.5
"""Seconds for which what an owner sent before it was killed, stopped or cut off may still arrive. Its lease lasts
longer: nobody else's can be there yet."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT")


def viewers_of(deployment: Deployment, count: int, symbol: str = "BTCUSDT") -> list[Viewer]:
    """So many for each node, whose favourite it is; others are their next choice."""
    hosts = deployment.hosts
    turns = [hosts[turn:] + hosts[:turn] for turn in range(len(hosts))]
    return [Viewer(turns[number % len(hosts)], number, symbol) for number in range(count * len(hosts))]


@asynccontextmanager
async def watching(
    deployment: Deployment, staying: Sequence[Viewer], wandering: Sequence[Viewer] = ()
) -> AsyncIterator[None]:
    """People look at charts for as long as the block lasts, from when all follow; who stays sees the present then."""
    async with trio.open_nursery() as nursery:
        for viewer in staying:
            nursery.start_soon(viewer.stays)
        for viewer in wandering:
            nursery.start_soon(viewer.wanders)
        with trio.fail_after(PATIENCE):
            while not all(viewer.chart.messages for viewer in (*staying, *wandering)):  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.05)
        yield
        if deployment.living:
            await deployment.until_shown(staying)
        nursery.cancel_scope.cancel()


async def check(deployment: Deployment, staying: Sequence[Viewer], wandering: Sequence[Viewer] = ()) -> None:
    """All charts are true and whole, and nobody was told to load again."""
    await catch_up(deployment, wandering)
    await deployment.check([*staying, *wandering])
    codes = {code for viewer in (*staying, *wandering) for code in viewer.codes}
    assert codes <= {0, 1012}


async def catch_up(deployment: Deployment, viewers: Sequence[Viewer]) -> None:
    """These people come once more, to a node that lives, and see the present."""
    if not viewers:
        return
    host, now = deployment.nodes[deployment.living[0]].host, await deployment.time()
    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            nursery.start_soon(viewer.catch_up, host, now)
    for viewer in viewers:
        assert viewer.shows(now), f"{viewer.symbol}: the chart is behind, {viewer.codes}"


async def until_news(
    deployment: Deployment, what: str, viewers: Sequence[Viewer], since: float, bound: float, *, still: float = STILL
) -> None:
    """Until all these charts show news from ``still`` seconds after a moment on; asserts that they do in time."""

    async def all_have() -> bool:
        return all(viewer.chart.first_news(since + still) < math.inf for viewer in viewers)

    await deployment.stalls.until(f"{what}: first news", all_have, bound, since=since)


async def until_owned(deployment: Deployment, owner: str, *, says: str, bound: float = PATIENCE) -> None:
    """Until a node says who owns the symbol."""

    async def is_said() -> bool:
        return (await deployment.owners(says)).get("BTCUSDT") == owner

    await deployment.stalls.until(f"{says} says that {owner} is the owner", is_said, bound)


async def test_an_owner_that_is_killed_is_replaced_within_its_lease_and_a_second() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        began = time.monotonic()
        staying, wandering = viewers_of(deployment, 5), viewers_of(deployment, 5)
        deaths: list[float] = []
        with hearing(deployment.redis) as announced:
            async with watching(deployment, staying, wandering):
                await trio.sleep(0.5)
                for _ in range(2):
                    owner = await deployment.owner()
                    dead = deployment.nodes[owner]
                    (survivor,) = set(deployment.nodes) - {owner}
                    await dead.kill()
                    killed = time.monotonic()
                    await until_news(deployment, "an owner killed", staying, killed, TAKEOVER)
                    assert await deployment.owner() == survivor
                    deaths.append(killed)
                    await deployment.start(owner, "BTCUSDT")
                    await deployment.until_live()
                    await trio.sleep(0.5)
            await check(deployment, staying, wandering)
        # One connection at all times, but from a death to the takeover.
        spans = await deployment.not_one(began, time.monotonic())
        assert [span.connections for span in spans] == [0, 0]
        for span, killed in zip(spans, deaths, strict=True):
            assert killed - 0.1 <= began + span.begin
            deployment.stalls.check("until connected again", killed, began + span.end - killed, TAKEOVER)
        assert announced.deaf == 0
        assert len(announced.check_one_writer()) == 3
        await deployment.check_stored()


async def test_all_nodes_die_and_those_that_come_go_on_where_they_were() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        staying, wandering = viewers_of(deployment, 2), viewers_of(deployment, 2)
        with hearing(deployment.redis) as announced:
            async with watching(deployment, staying, wandering):
                await trio.sleep(0.5)
                for name in ("a", "b"):
                    await deployment.nodes[name].kill()
                await trio.sleep(1)
                await deployment.start_all("b", "a")
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
            async with watching(deployment, staying, wandering):
                await trio.sleep(0.5)
                process.send_signal(signal.SIGSTOP)
                stopped = time.monotonic()
                mine = [viewer for viewer in staying if viewer.hosts[0] == deployment.nodes[other].host]
                await until_news(deployment, "its owner stopped", mine, stopped, TAKEOVER)
                await until_owned(deployment, other, says=other)
                await trio.sleep(0.5)
                process.send_signal(signal.SIGCONT)
                woken = time.monotonic()
                theirs = [viewer for viewer in staying if viewer not in mine]
                await until_news(deployment, "the sleeper woken", theirs, woken, 2.0, still=0.0)
                await until_owned(deployment, other, says=sleeper)
                await deployment.until_live()
                await trio.sleep(1)
                assert await deployment.owner() == other
                assert (await deployment.ready(sleeper))["status"] == "ready"
            await check(deployment, staying, wandering)
        assert announced.deaf == 0
        assert len(announced.check_one_writer()) == 2, "the sleeper, then the other, and nobody in between"
        # Two connections while one of their owners sleeps; a moment after it woke, one.
        spans = await deployment.not_one(stopped, time.monotonic())
        assert [span.connections for span in spans] == [2]
        deployment.stalls.check("woken, until it let go", woken, stopped + spans[0].end - woken, 1.5)
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
            async with watching(deployment, staying):
                await deployment.start("b", *SYMBOLS)
                assert await spread(deployment, 3, 3) == {"a": 3, "b": 3}
                await deployment.start("c", *SYMBOLS)
                assert await spread(deployment, 2, 2, 2) == {"a": 2, "b": 2, "c": 2}
                await deployment.until_live(*SYMBOLS)
                # People on the node that leaves, and people everywhere.
                hosts = [deployment.nodes[name].host for name in "bac"]
                leaving = [Viewer(hosts, number, symbol) for number, symbol in enumerate(SYMBOLS)]
                wandering = [Viewer(hosts, 10 + number, symbol) for number, symbol in enumerate(SYMBOLS)]
                async with watching(deployment, leaving, wandering):
                    await trio.sleep(1)
                    given_up = [symbol for symbol, owner in (await deployment.owners("a")).items() if owner == "b"]
                    left = time.monotonic()
                    status, seconds = await deployment.nodes["b"].end()
                    assert status == 0
                    deployment.stalls.check("the end of the node that left", left, seconds, 5.0)
                    others = [viewer for viewer in staying if viewer.symbol in given_up]
                    await until_news(deployment, "their owner left", others, left, HANDOVER, still=0.2)
                    assert await spread(deployment, 3, 3) == {"a": 3, "c": 3}
                    for viewer in leaving:
                        assert viewer.codes[1012] == 1, viewer.codes
            staying += leaving
            await check(deployment, staying, wandering)
        for symbol in SYMBOLS:
            announced.check_one_writer(symbol)
            await check_handovers(deployment, began, symbol)


async def check_handovers(deployment: Deployment, began: float, symbol: str = "BTCUSDT") -> None:
    """From a moment until now a symbol had one connection, or for a short time none."""
    for span in await deployment.not_one(began, time.monotonic(), symbol):
        assert span.connections == 0, span
        deployment.stalls.check(f"{symbol} without a connection", began + span.begin, span.end - span.begin, HANDOVER)


async def spread(deployment: Deployment, *counts: int) -> dict[str, int]:
    """How many symbols each node owns, once that is as expected, and all nodes see it so."""
    found: dict[str, int] = {}
    with trio.move_on_after(PATIENCE):
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
        async with watching(deployment, [pinned, asked, *new], wandering):
            await deployment.until_live(interval="5m")
            await deployment.until_live("SOLUSDT")
            await deployment.until_live(interval="15m")
            assert await spread(deployment, 1, 1) == {"a": 1, "b": 1}, "each has its share"
            with trio.fail_after(PATIENCE):
                while not all(viewer.chart.messages > 20 for viewer in (pinned, asked, *new)):  # noqa: ASYNC110 - as an outsider
                    await trio.sleep(0.05)
        await check(deployment, [pinned, asked, *new], wandering)
        for symbol in ("BTCUSDT", "SOLUSDT"):
            assert max(span.connections for span in await deployment.connections(symbol)) == 1
        # It may have gone to the other node when that got a share of the symbols.
        await check_handovers(deployment, began)


async def test_a_node_that_is_cut_off_from_the_store_alone_lets_go_in_the_end_and_follows() -> None:
    async with deploy() as deployment, run_proxy(deployment.redis.port) as line:
        await deployment.start("a", "BTCUSDT", store=line.url, module="tests.whole.short_hold")
        await deployment.until_live()
        await deployment.start("b", "BTCUSDT")
        await deployment.until_live()
        assert await deployment.owner() == "a"
        staying = viewers_of(deployment, 3)
        with hearing(deployment.redis) as announced:
            async with watching(deployment, staying):
                await trio.sleep(0.5)
                line.cut()
                cut = time.monotonic()
                theirs = [viewer for viewer in staying if viewer.hosts[0] == deployment.nodes["b"].host]
                await until_news(deployment, "its owner cut off", theirs, cut, TAKEOVER)
                await until_owned(deployment, "b", says="b")
                await deployment.until_state("a", "syncing", "stale")
                deployment.stalls.check("cut off, until it says so", cut, time.monotonic() - cut, TAKEOVER)

                async def has_let_go() -> bool:
                    answer = await deployment.rest("a")
                    assert answer.status_code == 200
                    assert answer.headers["Candlesync-State"] in ("syncing", "stale")
                    return (await deployment.connections())[-1].connections == 1

                await deployment.stalls.until("the node that was cut off lets go", has_let_go, HOLD + 1, since=cut)
                line.mend()
                await deployment.until_live()
                await trio.sleep(0.5)
                assert await deployment.owner() == "b"
            await check(deployment, staying)
        assert len(announced.check_one_writer()) == 2
        spans = await deployment.not_one(cut, time.monotonic())
        assert [span.connections for span in spans] == [2]
