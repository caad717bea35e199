"""The memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio.testing

from candlesync.errors import Fenced, NotContinuous, RevisionConflict
from candlesync.store.base import PromptStore, Store
from candlesync.store.memory import MemoryStore
from tests.builders import BTC, candle, forming, minute
from tests.store.contract import StoreContract, begin, commit_for, follow


@asynccontextmanager
async def memory_store(history: int) -> AsyncIterator[Store]:
    yield MemoryStore(history)


class TestMemoryStore(StoreContract):
    open_store = staticmethod(memory_store)


async def test_what_is_forgotten_is_gone() -> None:
    store = MemoryStore(10)
    token = await store.claim("BTCUSDT")
    await store.commit(BTC, begin(candle()), token=token)
    await store.forget(BTC, token=token)
    assert await store.read(BTC) is None


async def test_each_call_is_a_checkpoint() -> None:
    store = MemoryStore(10)
    with trio.testing.assert_checkpoints():
        token = await store.claim("BTCUSDT")
    with trio.testing.assert_checkpoints():
        await store.commit(BTC, begin(candle()), token=token)
    with trio.testing.assert_checkpoints():
        await store.read(BTC)
    with trio.testing.assert_checkpoints():
        await store.forget(BTC, token=token)


async def test_a_commit_whose_caller_was_cancelled_has_not_happened() -> None:
    """Stricter than the contract: here cancellation falls before the change."""
    for turns in range(4):
        store = MemoryStore(10)
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(forming(minute(0))), token=token)
        finished = await commit_for(turns, store, follow(2, candle(minute(0))), token)
        snapshot = await store.read(BTC)
        assert snapshot is not None
        assert (snapshot.revision == 2) is finished


async def test_a_prompt_commit_is_the_same_without_an_await() -> None:
    store = MemoryStore(10)
    token = await store.claim("BTCUSDT")
    assert isinstance(store, PromptStore)
    store.commit_now(BTC, begin(candle()), token=token)
    snapshot = await store.read(BTC)
    assert snapshot is not None
    assert snapshot.candles == ((candle(), 1),)
    with pytest.raises(Fenced):
        store.commit_now(BTC, follow(2, candle(minute(1))), token=token + 1)
    with pytest.raises(RevisionConflict):
        store.commit_now(BTC, follow(3, candle(minute(1))), token=token)
    with pytest.raises(NotContinuous):
        store.commit_now(BTC, follow(2, candle(minute(2))), token=token)
    assert await store.read(BTC) == snapshot
