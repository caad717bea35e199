"""What the clients got of the updates that were sent: judged when nothing is measured any more. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import market
from .upstream import Sent

_ANY = ("",)
"""Stands for the only symbol of a client."""


@dataclass(frozen=True)
class Delivery:
    """The sum of it."""

    messages: int
    """Candles that reached a client."""
    size: float
    """Bytes of one of them, on average."""
    delays: list[float]
    """Of each client and update, ascending: seconds from the update's leaving the upstream until the client had read
    it or a later one. A server that skips an update for a client thus gains nothing by it."""
    faults: list[str]
    """What must not be, in words: empty when every client got what it should have, in order, up to the last update."""


def judge(sent: Sent, clients: Iterable[Sequence[tuple[int, bytes]]], symbols: Sequence[str] = ()) -> Delivery:
    """Judge the messages of all clients, each with the time when it had been read (nanoseconds).

    Each update has one message of each of the symbols, for each client; without them, each client follows one,
    whichever it is. What is in order and up to date is so symbol by symbol.
    """
    count, size, delays, faults = 0, 0, list[float](), Counter[str]()
    for messages in clients:
        held = dict.fromkeys(symbols or _ANY, sent.first - 1)
        revisions = dict.fromkeys(symbols or _ANY, -1)
        for read_at, message in messages:
            update = market.update_of(message)
            if update is None:
                faults["a message that is no candle"] += 1
                continue
            symbol = market.symbol_of(message) if symbols else _ANY[0]
            if symbol not in held:
                faults["a candle of something else"] += 1
                continue
            count += 1
            size += len(message)
            if not held[symbol] < update <= sent.last:
                faults["an update that was out of order"] += 1
                continue
            new = slice(held[symbol] + 1 - sent.first, update + 1 - sent.first)
            delays += [(read_at - left_at) / 1e9 for left_at in sent.sent_at[new]]
            held[symbol] = update
            newer = market.revision_of(message)
            if newer is not None:
                if newer <= revisions[symbol]:
                    faults["a revision that did not ascend"] += 1
                revisions[symbol] = newer
        faults["no last update"] += sum(update != sent.last for update in held.values())
    delays.sort()
    texts = [f"{fault} ({number} times)" for fault, number in faults.items() if number]
    return Delivery(count, size / max(count, 1), delays, texts)


def lags(updates: Sequence[tuple[int, int]], client: Sequence[tuple[int, bytes]]) -> list[float]:
    """Of each update, ascending: seconds from a time until the client had read it or a later one.

    ``updates`` are times (nanoseconds) and updates, both ascending. What the client never got is left out.
    """
    found, messages = list[float](), iter(client)
    read_at, held = 0, -1
    for begin, update in updates:
        while held < update:
            message = next(messages, None)
            if message is None:
                return sorted(found)
            read_at, held = message[0], market.update_of(message[1]) or -1
        found.append((read_at - begin) / 1e9)
    return sorted(found)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]
