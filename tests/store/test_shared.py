"""The contract of a store that nodes share, over real servers, in real time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from candlesync.store.address import Address
from candlesync.store.base import SharedStore
from candlesync.store.redis import RedisSettings, RedisStore
from tests.store.redis_server import REDIS, RedisServer, redis_nodes, run_cluster, shared
from tests.store.shared_contract import MakeNode, SharedStoreContract

CLUSTER: list[RedisServer] = []


def test_mypy_takes_it_for_a_shared_store() -> None:
    store: SharedStore = RedisStore(RedisSettings(Address("redis://localhost")), 10)
    assert store.lease == 2.0


class TestSharedOnValkey(SharedStoreContract):
    @staticmethod
    def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
        return redis_nodes(shared().url, history, lease)


if REDIS is not None:

    class TestSharedOnRedis(SharedStoreContract):
        @staticmethod
        def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
            return redis_nodes(shared(REDIS).url, history, lease)


class TestSharedOnACluster(SharedStoreContract):
    @staticmethod
    def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
        return redis_nodes(f"redis+cluster://127.0.0.1:{CLUSTER[1].port}", history, lease)

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def _servers() -> Iterator[None]:
        with run_cluster() as CLUSTER[:]:
            yield
