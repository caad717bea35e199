"""The contract of a store that nodes share, over real servers, in real time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from candlesync.store.address import Address
from candlesync.store.base import SharedStore
from candlesync.store.redis import RedisSettings, RedisStore
from tests.store.redis_server import REDIS, RedisServer, redis_nodes, run_cluster, run_server
from tests.store.shared_contract import MakeNode, SharedStoreContract

SERVERS: dict[str, RedisServer] = {}


def test_mypy_takes_it_for_a_shared_store() -> None:
    store: SharedStore = RedisStore(RedisSettings(Address("redis://localhost")), 10)
    assert store.lease == 2.0


class TestSharedOnValkey(SharedStoreContract):
    @staticmethod
    def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
        return redis_nodes(SERVERS["valkey"].url, history, lease)

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def _server() -> Iterator[None]:
        with run_server() as SERVERS["valkey"]:
            yield


if REDIS is not None:

    class TestSharedOnRedis(SharedStoreContract):
        @staticmethod
        def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
            return redis_nodes(SERVERS["redis"].url, history, lease)

        @pytest.fixture(scope="class", autouse=True)
        @staticmethod
        def _server() -> Iterator[None]:
            with run_server(program=REDIS) as SERVERS["redis"]:
                yield


class TestSharedOnACluster(SharedStoreContract):
    @staticmethod
    def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
        return redis_nodes(f"redis+cluster://127.0.0.1:{SERVERS['cluster'].port}", history, lease)

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def _servers() -> Iterator[None]:
        with run_cluster() as servers:
            SERVERS["cluster"] = servers[1]
            yield
