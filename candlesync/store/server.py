"""The server that the store's scripts run on. Blocking: for worker threads.

redis-py would by itself send again what timed out or lost its connection, and so run a script twice (tried). Its
retries are therefore off. What is sent again here is only what the server has said that it did not do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import redis
import trio
from redis.exceptions import NoScriptError

from candlesync.store.address import Address
from candlesync.store.reasons import KNOWN, explain
from candlesync.store.scripts import Call

Outcome = object
"""What a script gave, or the `StoreUnavailable` that came instead."""


class Servers(Protocol):
    """Where scripts run."""

    name: str

    def place(self, key: str) -> str:
        """The name of the server that holds a key, as far as is known; for grouping. Never blocks."""
        ...

    def places(self) -> Sequence[Mapping[str, Any]]:
        """What to tell redis-py of each server at which all that is announced can be heard. Never blocks."""
        ...

    def execute(self, calls: Sequence[Call]) -> list[Outcome]:
        """Run them in order, one round trip to each server; what came of each.

        Blocks, for a few times the timeouts at most; called in a worker thread of trio's.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class OneServer:
    """A single Redis."""

    def __init__(self, address: Address) -> None:
        self.name = address.name
        (self._options,) = address.options()
        self._client = redis.Redis.from_pool(redis.ConnectionPool(**self._options))  # closed with it

    def place(self, key: str) -> str:
        """See `Servers.place`."""
        del key
        return ""

    def places(self) -> Sequence[Mapping[str, Any]]:
        """See `Servers.places`."""
        return [self._options]

    def execute(self, calls: Sequence[Call]) -> list[Outcome]:
        """See `Servers.execute`."""
        return [
            explained(outcome, self.name, call) for call, outcome in zip(calls, run(self._client, calls), strict=True)
        ]

    def close(self) -> None:
        """See `Servers.close`."""
        self._client.close()


def run(client: redis.Redis, calls: Sequence[Call]) -> list[Outcome]:
    """Run calls on one server, in one round trip; what each gave, or one of `KNOWN`."""
    outcomes = _send(client, calls, in_full=False)
    unknown = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, NoScriptError)]
    if unknown:
        # Not done: it has been restarted, or told to forget its scripts. Nobody waits for an abandoned thread's.
        trio.from_thread.check_cancelled()
        again = _send(client, [calls[index] for index in unknown], in_full=True)
        for index, outcome in zip(unknown, again, strict=True):
            outcomes[index] = outcome
    return outcomes


def _send(client: redis.Redis, calls: Sequence[Call], *, in_full: bool) -> list[Outcome]:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        how, script = ("EVAL", call.script.text) if in_full else ("EVALSHA", call.script.sha)
        pipeline.execute_command(how, script, len(call.keys), *call.keys, *call.arguments)
    try:
        return pipeline.execute(raise_on_error=False)
    except KNOWN as error:
        return [error] * len(calls)


def explained(outcome: Outcome, where: str, call: Call) -> Outcome:
    """An outcome of `run` as the store's users get it."""
    return explain(outcome, where, call.keys) if isinstance(outcome, KNOWN) else outcome
