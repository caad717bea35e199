"""What is announced in Redis, heard by a thread of the tests' own, which knows the bytes and none of our code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.store.redis_server import RedisServer

_COMMIT, _REPORT, _RELEASE = 1, 2, 3
"""The tags of the messages (``store.codec``, ``store.announcing``)."""


class Committed(NamedTuple):
    """A commit that was announced."""

    time: float
    symbol: str
    interval: str
    life: str
    revision: int
    begins: bool
    replaces: str
    writer: str
    """The identity of the node that made it."""


class Announced:
    """What was heard so far; times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self.commits: list[Committed] = []
        self.reporters: list[tuple[float, str, str]] = []
        """Time, symbol and node of each report."""
        self.deaf = 0
        """How often the server was lost."""

    def take(self, channel: bytes, message: bytes) -> None:
        """Note a message."""
        symbol = channel.decode().partition("{")[2].removesuffix("}")
        said: list[Any] = msgspec.msgpack.decode(message)
        if said[0] == _COMMIT:
            interval, life, revision, begins, replaces, identity = said[1:7]
            writer = identity.rpartition("-")[0]
            made = Committed(time.monotonic(), symbol, interval, life, revision, begins, replaces, writer)
            self.commits.append(made)
        elif said[0] == _REPORT:
            self.reporters.append((time.monotonic(), symbol, said[1]))

    def check_one_writer(self, symbol: str = "BTCUSDT") -> list[str]:
        """The writers of a symbol's minutes, one after the other; each revision was made once, by one of them."""
        commits = [made for made in self.commits if made.symbol == symbol and made.interval == "1m"]
        for before, made in pairwise(commits):
            if made.life == before.life:
                assert made.revision == before.revision + 1, f"{made} follows {before}"
            else:
                assert made.revision == 1, made
                assert made.replaces in ("", before.life), made
        writers: list[str] = []
        for made in commits:
            if not writers or writers[-1] != made.writer:
                writers.append(made.writer)
        return writers


@contextmanager
def hearing(server: RedisServer, prefix: str = "candlesync") -> Iterator[Announced]:
    """Hear all that is announced for as long as the block lasts, whatever becomes of the server meanwhile."""
    announced = Announced()
    done, ready = threading.Event(), threading.Event()

    def listen() -> None:
        while not done.is_set():
            try:
                # Not tried again: redis-py would subscribe anew by itself, and nobody would know what was missed.
                with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client, client.pubsub() as pubsub:
                    pubsub.psubscribe(f"{prefix}@0:*")
                    while not done.is_set():
                        heard = pubsub.get_message(timeout=0.1)
                        if heard is not None and heard["type"] == "psubscribe":
                            ready.set()
                        elif heard is not None and heard["type"] == "pmessage":
                            announced.take(heard["channel"], heard["data"])
            except redis.RedisError:
                announced.deaf += 1
                time.sleep(0.05)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert ready.wait(60)
        yield announced
    finally:
        done.set()
        thread.join()
