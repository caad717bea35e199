"""The servers of a Redis Cluster. Blocking: for worker threads.

Of redis-py's cluster client only the map of the slots is used. Its pipeline sends what timed out again, one by one, and
cannot be kept from it; so the calls are sorted by server here, and each server gets a plain pipeline.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import redis
import trio
from redis import exceptions as of_redis
from redis.cluster import ClusterNode, RedisCluster

from candlesync.store.address import Address
from candlesync.store.reasons import KNOWN
from candlesync.store.scripts import Call
from candlesync.store.server import Outcome, explained, run

_PORT = 6379

_CHANGES = (
    of_redis.MovedError,
    of_redis.ClusterDownError,
    of_redis.ReadOnlyError,
    of_redis.ConnectionError,
    of_redis.TimeoutError,
)
"""What shows that the map of the slots may be old."""


class Cluster:
    """A Redis Cluster: each call goes to the server that holds the slot of its keys."""

    def __init__(self, address: Address) -> None:
        self.name = address.name
        options = address.options()
        self._options = options[0]
        self._shared = {name: value for name, value in options[0].items() if name not in {"host", "port", "db"}}
        connection_class = self._shared.pop("connection_class", None)
        if connection_class is not None:
            self._shared["ssl"] = connection_class is redis.SSLConnection
        self._seeds = [(each.get("host", "localhost"), each.get("port", _PORT)) for each in options]
        self._known: list[tuple[str, int]] = []
        self._asking = threading.Lock()
        """Held by the thread that asks the cluster for its map of the slots."""
        self._lock = threading.Lock()
        """Held over each change of what follows, never over anything that blocks."""
        self._map: _Map | None = None

    def place(self, key: str) -> str:
        """See `Servers.place`."""
        held = self._map
        try:
            return "" if held is None else str(held.slots.get_node_from_key(key).name)
        except of_redis.RedisClusterException:  # no server has the slot
            return ""

    def places(self) -> Sequence[Mapping[str, Any]]:
        """See `Servers.places`."""
        # Servers tell each other what was announced: the replicas, too.
        held = self._map
        known = self._known if held is None else [(node.host, node.port) for node in held.slots.get_nodes()]
        return [{**self._options, "host": host, "port": port} for host, port in dict.fromkeys((*known, *self._seeds))]

    def execute(self, calls: Sequence[Call]) -> list[Outcome]:
        """See `Servers.execute`."""
        outcomes = self._execute_once(calls)
        moved = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, of_redis.MovedError)]
        if moved:
            # By a server that has not done it: the map is old, and has been dropped.
            trio.from_thread.check_cancelled()
            again = self._execute_once([calls[index] for index in moved])
            for index, outcome in zip(moved, again, strict=True):
                outcomes[index] = outcome
        return [explained(outcome, self.name, call) for call, outcome in zip(calls, outcomes, strict=True)]

    def close(self) -> None:
        """See `Servers.close`."""
        if self._map is not None:
            self._drop(self._map)

    def _execute_once(self, calls: Sequence[Call]) -> list[Outcome]:
        try:
            held = self._take()
        except KNOWN as error:
            return [error] * len(calls)
        try:
            return self._execute_by(held, calls)
        finally:
            self._give_back(held)

    def _execute_by(self, held: _Map, calls: Sequence[Call]) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(calls)
        groups: dict[str, list[int]] = {}
        nodes: dict[str, ClusterNode] = {}
        for index, call in enumerate(calls):
            try:
                node = held.slots.get_node_from_key(call.keys[0])
            except of_redis.RedisClusterException as error:  # no server has the slot
                outcomes[index] = error
                self._drop(held)
            else:
                nodes[node.name] = node
                groups.setdefault(node.name, []).append(index)
        for name, group in groups.items():
            made = run(held.slots.get_redis_connection(nodes[name]), [calls[index] for index in group])
            for index, outcome in zip(group, made, strict=True):
                outcomes[index] = outcome
            if any(isinstance(outcome, _CHANGES) for outcome in made):
                self._drop(held, nodes[name])
        return outcomes

    def _take(self) -> _Map:
        """The map of the slots, asked for if there is none; to be given back."""
        with self._asking:
            with self._lock:
                if self._map is not None:
                    self._map.users += 1
                    return self._map
            nodes = [ClusterNode(host, port) for host, port in dict.fromkeys((*self._known, *self._seeds))]
            asked = _Map(RedisCluster(startup_nodes=nodes, require_full_coverage=False, **self._shared))
            with self._lock:
                self._map = asked
            return asked

    def _give_back(self, held: _Map) -> None:
        with self._lock:
            held.users -= 1
            if held is not self._map and held.users == 0:
                held.slots.close()

    def _drop(self, held: _Map, failed: ClusterNode | None = None) -> None:
        """Ask for another map before the next call, and not the server that has just failed, if there are others."""
        with self._lock:
            if held is not self._map:
                return
            known = [(node.host, node.port) for node in held.slots.get_nodes()]
            self._known = [each for each in known if failed is None or each != (failed.host, failed.port)]
            self._map = None
            if held.users == 0:
                held.slots.close()


class _Map:
    """Which server holds which slots, with the connections to them."""

    def __init__(self, slots: RedisCluster) -> None:
        self.slots = slots
        self.users = 1
        """Threads that wait for answers on its connections: it is closed when the last of them leaves."""
