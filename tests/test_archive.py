"""Older history: read once, joined, bounded; and never short because Binance is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.archive import Archive, ArchiveSettings
from candlesync.core.entry import Entry
from candlesync.core.page import LENGTH
from candlesync.errors import UpstreamUnavailable
from tests.builders import BTC, T0, minute
from tests.history import Exchange


def numbers(entries: Sequence[Entry]) -> list[int]:
    return [(entry.open_time - T0) // 60_000 for entry in entries]


async def test_older_candles_are_joined_from_pages_and_each_is_read_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-10_000, 1000, missing=[-700, -699, -1500])
    archive = Archive(exchange)
    await nursery.start(archive.run)
    entries = await archive.older(BTC, 1000, before=minute(0), joint=minute(0))
    assert numbers(entries) == list(range(-1000, 0))
    assert [number for number, entry in zip(numbers(entries), entries, strict=True) if entry.candle.filled] == [
        -700,
        -699,
    ]
    assert all(entry.revision == 0 and entry.candle.closed for entry in entries)
    asked = len(exchange.asked)
    assert asked <= 3
    assert numbers(await archive.older(BTC, 500, before=minute(-200), joint=minute(0))) == list(range(-700, -200))
    assert len(exchange.asked) == asked
    counted = archive.statistics()
    assert (counted.read, counted.pages, counted.refused_for_weight) == (2, 2, 0)
    assert counted.kept > 0
    # The store has moved on: only the page into which it reached is read again, once for a while.
    assert numbers(await archive.older(BTC, 100, before=minute(7), joint=minute(7))) == list(range(-93, 7))
    assert len(exchange.asked) == asked + 1
    for request in exchange.asked:
        assert request["limit"] <= 1000


async def test_who_waits_for_the_same_page_shares_it_and_may_leave(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-5_000, 0)
    exchange.delay = 3.0
    archive = Archive(exchange)
    await nursery.start(archive.run)
    got: list[int] = []

    async def ask() -> None:
        got.append(len(await archive.older(BTC, 10, before=minute(-100), joint=minute(0))))

    async with trio.open_nursery() as askers:
        with trio.CancelScope() as left:
            askers.start_soon(ask)
            askers.start_soon(ask)
            with trio.move_on_after(1) as first:
                await archive.older(BTC, 10, before=minute(-100), joint=minute(0))
        assert first.cancelled_caught
        assert not left.cancelled_caught
    assert got == [10, 10]
    assert len(exchange.asked) == 1


async def test_where_the_series_begins_there_is_nothing_older(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    exchange = Exchange(-50, 0)
    archive = Archive(exchange)
    await nursery.start(archive.run)
    assert numbers(await archive.older(BTC, 1000, before=minute(-10), joint=minute(0))) == list(range(-50, -10))
    asked = len(exchange.asked)
    for before in (minute(-50), minute(-10_000), 60_000, 0):
        assert await archive.older(BTC, 1000, before=before, joint=minute(0)) == []
    assert len(exchange.asked) == asked, "it is remembered"


async def test_an_outage_that_is_longer_than_pages_is_filled(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    exchange = Exchange(-9_000, 0, missing=range(-5_000, -1_000))
    archive = Archive(exchange)
    await nursery.start(archive.run)
    entries = await archive.older(BTC, 1000, before=minute(-2_000), joint=minute(0))
    assert numbers(entries) == list(range(-3_000, -2_000))
    assert all(entry.candle.filled for entry in entries)
    entries = await archive.older(BTC, 1000, before=minute(-4_500), joint=minute(0))
    assert [entry.candle.filled for entry in entries] == [False] * 500 + [True] * 500


async def test_when_binance_is_away_the_answer_is_not_short_and_the_next_who_asks_tries_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-5_000, 0)
    archive = Archive(exchange, ArchiveSettings(patience=5.0))
    await nursery.start(archive.run)
    exchange.error = UpstreamUnavailable("away")
    with pytest.raises(UpstreamUnavailable, match="away"):
        await archive.older(BTC, 10, before=minute(-100), joint=minute(0))
    exchange.error, exchange.delay = None, 100.0
    with pytest.raises(UpstreamUnavailable, match="within 5 s"):
        await archive.older(BTC, 10, before=minute(-100), joint=minute(0))
    exchange.delay = 0.0
    assert len(await archive.older(BTC, 10, before=minute(-100), joint=minute(0))) == 10


async def test_an_exchange_that_is_behind_what_it_has_sent_is_not_believed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-5_000, -40)  # the store begins at minute 0, and the newest row here is not final
    archive = Archive(exchange)
    await nursery.start(archive.run)
    with pytest.raises(UpstreamUnavailable, match="behind"):
        await archive.older(BTC, 10, before=minute(0), joint=minute(0))


async def test_the_weight_that_live_series_need_is_left_to_them(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-5_000, 0)
    archive = Archive(exchange)
    await nursery.start(archive.run)
    with await exchange.budget.spend(2, patience=1) as spend:
        spend.sent()
        spend.report(3_001)
    with pytest.raises(UpstreamUnavailable, match="weight") as refused:
        await archive.older(BTC, 10, before=minute(-100), joint=minute(0))
    assert refused.value.retry_after >= 5
    assert exchange.asked == []
    assert archive.statistics().refused_for_weight == 1
    await trio.sleep(61)
    assert len(await archive.older(BTC, 10, before=minute(-100), joint=minute(0))) == 10


async def test_two_are_read_at_once_and_few_are_kept(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    exchange = Exchange(-40_000, 0)
    exchange.delay = 1.0
    archive = Archive(exchange, ArchiveSettings(pages=3, patience=100.0))
    await nursery.start(archive.run)
    began = trio.current_time()
    async with trio.open_nursery() as askers:
        for page in range(8):
            askers.start_soon(ask_for_page(archive, page))
        await wait_all_tasks_blocked()
        assert len(exchange.asked) == 2
    assert trio.current_time() - began >= 4
    for page in (5, 6, 7):
        await ask_for_page(archive, page)()
    asked = len(exchange.asked)
    for page in (7, 5, 6):
        await ask_for_page(archive, page)()
    assert len(exchange.asked) == asked
    await ask_for_page(archive, 0)()
    assert len(exchange.asked) > asked, "long gone"


async def test_what_binance_itself_has_is_read_over_long_outages_in_few_answers(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    exchange = Exchange(-90_000, 0, missing=range(-80_000, -1_500))
    archive = Archive(exchange)
    await nursery.start(archive.run)
    rows = await archive.rows_before(BTC, 2000, before=minute(0), joint=minute(0))
    assert numbers(rows) == [*range(-80_500, -80_000), *range(-1_500, 0)]
    assert len(exchange.asked) <= 8
    asked = len(exchange.asked)
    rows = await archive.rows_from(BTC, 1000, start=minute(-80_500), end=minute(0), joint=minute(0))
    assert numbers(rows) == [*range(-80_500, -80_000), *range(-1_500, -1_000)]
    assert len(exchange.asked) - asked <= 4


async def test_where_the_series_begins_is_asked_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    exchange = Exchange(-50_000, 0)
    archive = Archive(exchange)
    await nursery.start(archive.run)
    for _ in range(2):
        rows = await archive.rows_from(BTC, 3, start=0, end=minute(0), joint=minute(0))
        assert numbers(rows) == [-50_000, -49_999, -49_998]
        assert len(exchange.asked) == 3, "before it, where it is, and its page"


def ask_for_page(archive: Archive, page: int) -> Any:
    async def ask() -> None:
        before = minute(-100 - page * LENGTH)
        assert len(await archive.older(BTC, 1, before=before, joint=minute(0))) == 1

    return ask
