"""The list of symbols: loaded when it is needed, by one at a time, and kept while Binance cannot be asked."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.binance.listing import SymbolInfo
from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.symbols import Symbols, SymbolSettings
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.errors import LocationRefused, RateLimited, UnknownSymbol, UpstreamUnavailable


class Binance:
    """Lists ``symbols``; answers after ``delay`` seconds; with ``status`` when that is not 200."""

    def __init__(self, *symbols: str) -> None:
        self.symbols = list(symbols)
        self.status = 200
        self.delay = 0.0
        self.loads: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/exchangeInfo"
        self.loads.append(trio.current_time())
        await trio.sleep(self.delay)
        return httpx.Response(self.status, json={"symbols": [{"symbol": symbol} for symbol in self.symbols]})


def symbols_of(binance: Binance, settings: SymbolSettings | None = None) -> Symbols:
    client = httpx.AsyncClient(transport=httpx.MockTransport(binance), base_url="http://binance")
    return Symbols(
        Rest(client, WeightBudget(WeightSettings(spread=0)), RestSettings(base_url="http://binance", attempts=1)),
        settings,
    )


async def lists(symbols: Symbols, symbol: str) -> bool:
    try:
        await symbols.require(symbol)
    except UnknownSymbol:
        return False
    return True


async def test_what_is_listed_is_loaded_when_it_is_first_needed() -> None:
    binance = Binance("BTCUSDT", "ETHUSDT")
    symbols = symbols_of(binance)
    assert not binance.loads
    assert await symbols.require("BTCUSDT") == SymbolInfo("BTCUSDT")
    assert await lists(symbols, "ETHUSDT")
    assert await symbols.all() == (SymbolInfo("BTCUSDT"), SymbolInfo("ETHUSDT"))
    assert len(binance.loads) == 1


async def test_an_unknown_symbol_is_known_to_be_unknown() -> None:
    binance = Binance("BTCUSDT")
    symbols = symbols_of(binance)
    with pytest.raises(UnknownSymbol, match="does not list NOPE"):
        await symbols.require("NOPE")
    assert not await lists(symbols, "btcusdt")  # names are upper case
    assert len(binance.loads) == 1


async def test_one_load_however_many_ask(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    binance.delay = 3
    symbols = symbols_of(binance)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(symbols.require, "BTCUSDT")
            nursery.start_soon(lists, symbols, "NOPE")
    assert binance.loads == [0]
    assert trio.current_time() == 3


async def test_it_is_loaded_again_after_an_hour(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    symbols = symbols_of(binance)
    await symbols.require("BTCUSDT")
    binance.symbols = ["ETHUSDT"]
    await trio.sleep(3599)
    await symbols.require("BTCUSDT")
    await trio.sleep(1)
    assert not await lists(symbols, "BTCUSDT")
    assert await symbols.all() == (SymbolInfo("ETHUSDT"),)
    assert binance.loads == [0, 3600]


async def test_a_new_listing_is_found_within_a_minute(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    symbols = symbols_of(binance)
    assert not await lists(symbols, "NEWUSDT")
    binance.symbols.append("NEWUSDT")
    for _ in range(59):
        await trio.sleep(1)
        assert not await lists(symbols, "NEWUSDT")
    await trio.sleep(1)
    assert await lists(symbols, "NEWUSDT")
    assert binance.loads == [0, 60]


async def test_while_a_refresh_fails_the_old_list_stands(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    symbols = symbols_of(binance)
    await symbols.all()
    await trio.sleep(3600)
    binance.status = 503
    for _ in range(90):
        assert await lists(symbols, "BTCUSDT")
        assert not await lists(symbols, "NOPE")
        assert len(await symbols.all()) == 1
        await trio.sleep(1)
    assert binance.loads == [0, 3600, 3660]
    binance.status = 200
    binance.symbols.append("NEWUSDT")
    await trio.sleep(30)
    assert await lists(symbols, "NEWUSDT")


async def test_who_finds_his_symbol_on_the_old_list_does_not_wait_for_the_new_one(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    symbols = symbols_of(binance)
    await symbols.all()
    await trio.sleep(3600)
    binance.delay = 5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(symbols.require, "BTCUSDT")  # the one who loads
        await wait_all_tasks_blocked()
        assert await lists(symbols, "BTCUSDT")
        assert len(await symbols.all()) == 1
        assert trio.current_time() == 3600
        binance.symbols.append("NEWUSDT")
        assert await lists(symbols, "NEWUSDT")
        assert trio.current_time() == 3605
    assert binance.loads == [0, 3600]


async def test_without_any_list_it_says_so_and_does_not_hammer(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    binance.status = 503
    symbols = symbols_of(binance)
    for waited in range(5):
        for ask in (symbols.all(), lists(symbols, "BTCUSDT"), symbols.require("NOPE")):
            with pytest.raises(UpstreamUnavailable, match="Binance answered 503") as caught:
                await ask
            assert caught.value.retry_after == 5 - waited
        await trio.sleep(1)
    assert binance.loads == [0]
    binance.status = 200
    assert await lists(symbols, "BTCUSDT")
    assert binance.loads == [0, 5]


@pytest.mark.parametrize(("status", "error", "retry_after"), [(451, LocationRefused, 5), (418, RateLimited, 120)])
async def test_a_failure_stays_what_it_is(
    status: int, error: type[UpstreamUnavailable], retry_after: float, autojump_clock: MockClock
) -> None:
    binance = Binance("BTCUSDT")
    binance.status = status
    symbols = symbols_of(binance)
    for waited in (0, 1):
        with pytest.raises(error) as caught:
            await symbols.all()
        assert caught.value.retry_after == retry_after - waited
        await trio.sleep(1)
    assert len(binance.loads) == 1


async def test_a_load_that_hangs_ends_for_everybody(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    binance.delay = 1e6
    symbols = symbols_of(binance, SymbolSettings(patience=10))

    async def ask() -> None:
        with pytest.raises(UpstreamUnavailable):
            await lists(symbols, "BTCUSDT")

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert trio.current_time() == 10
    assert len(binance.loads) == 1


async def test_a_loader_that_is_cancelled_leaves_the_load_to_the_next(autojump_clock: MockClock) -> None:
    binance = Binance("BTCUSDT")
    binance.delay = 10
    symbols = symbols_of(binance)
    known: list[bool] = []

    async def ask(patience: float) -> None:
        with trio.move_on_after(patience):
            known.append(await lists(symbols, "BTCUSDT"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 4)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, 100)
        nursery.start_soon(ask, 100)
        await wait_all_tasks_blocked()
        assert binance.loads == [0]
    assert binance.loads == [0, 4]
    assert known == [True, True]
    assert trio.current_time() == 14
