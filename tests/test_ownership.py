"""What a tenure is, and the ownership of a process that shares its store with nobody."""

from __future__ import annotations

import trio

from candlesync.ownership import Ownership, SoleOwnership, Tenure
from candlesync.store.memory import MemoryStore
from tests.builders import BTC, candle
from tests.store.contract import begin


async def test_whoever_shares_with_nobody_owns_each_symbol_until_it_gives_it_up() -> None:
    store = MemoryStore(10)
    ownership: Ownership = SoleOwnership(store)
    first = await ownership.obtain("BTCUSDT", dict)
    ownership.state_changed(first)
    await store.commit(BTC, begin(candle()), token=first.token)
    assert not first.ended.is_set()
    await ownership.give_up(first)
    second = await ownership.obtain("BTCUSDT", dict)
    assert second.token != first.token


async def test_a_tenure_ends_once_for_the_first_reason() -> None:
    tenure = Tenure("BTCUSDT", 1)
    assert (tenure.ended.is_set(), tenure.reason) == (False, "")
    tenure.end("the lease was lost")
    tenure.end("another reason")
    with trio.fail_after(1):
        await tenure.ended.wait()
    assert tenure.reason == "the lease was lost"
