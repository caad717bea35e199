"""What is passed on: shared, bounded, and never at the cost of live series."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.binance.public import PublicPath
from candlesync.binance.public_paths import SPOT_API
from candlesync.binance.rest import PassedOn
from candlesync.doors.binance.passing import Passing, PassingSettings
from candlesync.errors import RateLimited, UpstreamUnavailable
from candlesync.supervisor import asked_by
from tests.doors.binance.upstream import Upstream

PRICE, DAY, TIME = (SPOT_API.at(endpoint) for endpoint in ("ticker/price", "ticker/24hr", "time"))


async def opened(nursery: trio.Nursery, settings: PassingSettings | None = None) -> tuple[Passing, Upstream]:
    upstream = Upstream()
    passing = Passing(upstream, settings)
    await nursery.start(passing.run)
    return passing, upstream


async def test_a_question_goes_upstream_from_the_table(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    passing, upstream = await opened(nursery)
    answer = await passing.ask(DAY, {"symbol": "BTCUSDT", "type": "MINI"})
    assert answer == PassedOn(200, b'{"number":1}')
    await passing.ask(PRICE, {}, in_microseconds=True)
    assert upstream.asked == [
        {"path": "/api/v3/ticker/24hr", "params": {"symbol": "BTCUSDT", "type": "MINI"}, "weight": 2, "headers": {}},
        {"path": "/api/v3/ticker/price", "params": {}, "weight": 4, "headers": {"X-MBX-TIME-UNIT": "MICROSECOND"}},
    ]


async def test_who_asks_the_same_at_the_same_time_shares_the_answer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    passing, upstream = await opened(nursery)
    upstream.delay = 1.0
    got: list[bytes] = []

    async def ask(path: PublicPath, symbol: str) -> None:
        got.append((await passing.ask(path, {"symbol": symbol} if symbol else {})).body)

    async with trio.open_nursery() as asking:
        for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
            asking.start_soon(ask, PRICE, symbol)
    assert sorted(got) == [b'{"number":1}', b'{"number":1}', b'{"number":2}'] or len(set(got)) == 2
    assert len(upstream.asked) == 2
    await ask(PRICE, "BTCUSDT")
    assert len(upstream.asked) == 3, "a price is not kept"
    async with trio.open_nursery() as asking:
        asking.start_soon(ask, TIME, "")
        asking.start_soon(ask, TIME, "")
    assert len(upstream.asked) == 5, "the time is nobody else's"
    assert passing.statistics().shared == 1


async def test_answers_are_kept_as_long_as_the_table_says_and_not_too_many(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    passing, upstream = await opened(nursery, PassingSettings(kept_answers=2, kept_bytes=40))
    for _ in range(3):
        assert (await passing.ask(DAY, {})).body == b'{"number":1}'
    await trio.sleep(1.1)
    assert (await passing.ask(DAY, {})).body == b'{"number":2}'
    await passing.ask(DAY, {"symbol": "A"})
    await passing.ask(DAY, {"symbol": "B"})
    assert (await passing.ask(DAY, {})).body == b'{"number":5}', "two are kept"
    upstream.answer = PassedOn(200, b"x" * 39)
    await passing.ask(DAY, {"symbol": "C"})
    upstream.answer = None
    assert (await passing.ask(DAY, {})).body == b'{"number":7}', "40 bytes are kept"
    upstream.answer = PassedOn(200, b"x" * 41)
    await passing.ask(DAY, {"symbol": "D"})
    await passing.ask(DAY, {"symbol": "D"})
    assert len(upstream.asked) == 9, "what is longer than all that is kept is not kept"
    counted = passing.statistics()
    assert (counted.answers, counted.kept) == ({"2xx": 9}, 2)
    assert (counted.kept_answers, counted.kept_bytes) == (0, 0)


async def test_half_of_the_weight_is_left_to_live_series(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    passing, upstream = await opened(nursery)
    await upstream.use(3_001)
    for path in (PRICE, TIME):
        with pytest.raises(RateLimited, match="weight") as refused:
            await passing.ask(path, {})
        assert refused.value.retry_after >= 5
    assert upstream.asked == []
    assert passing.statistics().refused_for_weight == 2
    await trio.sleep(61)
    await passing.ask(PRICE, {})


async def test_no_client_takes_all_that_the_others_could_have(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    passing, upstream = await opened(nursery)
    one = asked_by.set("192.0.2.1")
    for number in range(15):
        await passing.ask(DAY, {"type": f"T{number}"})
    with pytest.raises(RateLimited, match="1200 request weight a minute") as refused:
        await passing.ask(DAY, {"type": "T15"})
    assert refused.value.retry_after == pytest.approx(4, abs=0.1)
    counted = passing.statistics()
    assert (counted.refused_for_address, counted.refused_for_weight) == (1, 0)
    assert (await passing.ask(DAY, {"type": "T14"})).status == 200, "what is kept costs nobody anything"
    for other in ("192.0.2.2", ""):
        asked_by.set(other)
        await passing.ask(DAY, {"type": f"other{other}"})
    asked_by.reset(one)
    upstream.delay = 1.0

    async def share(address: str) -> None:
        asked_by.set(address)
        await passing.ask(PRICE, {"symbol": "BTCUSDT"})

    async with trio.open_nursery() as asking:
        asking.start_soon(share, "192.0.2.3")
        await wait_all_tasks_blocked()
        asking.start_soon(share, "192.0.2.1")
    assert len(upstream.asked) == 18


async def test_few_are_on_their_way_and_none_for_ever(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    passing, upstream = await opened(nursery)
    upstream.delay = 100.0
    told = 0

    async def ask(number: int) -> None:
        nonlocal told
        with pytest.raises(UpstreamUnavailable, match="within 9 s"):
            await passing.ask(PRICE, {"symbol": f"S{number}"})
        told += 1

    async with trio.open_nursery() as asking:
        for number in range(10):
            asking.start_soon(ask, number)
        await wait_all_tasks_blocked()
        assert len(upstream.asked) == 4
    assert told == 10


async def test_a_failure_is_not_kept(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    passing, upstream = await opened(nursery)
    upstream.error = UpstreamUnavailable("away")
    with pytest.raises(UpstreamUnavailable, match="away"):
        await passing.ask(DAY, {})
    upstream.error = None
    assert (await passing.ask(DAY, {})).status == 200
    upstream.answer = PassedOn(400, b'{"code":-1121,"msg":"Invalid symbol."}')
    await passing.ask(DAY, {"symbol": "NOPE"})
    assert passing.statistics().answers == {"none": 1, "2xx": 1, "4xx": 1}
