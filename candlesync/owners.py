"""``candlesync owners``: which nodes share a store, and which of them owns which symbol."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from candlesync.core.placement import Member
from candlesync.store.redis import RedisSettings, RedisStore


async def show_owners(settings: RedisSettings, say: Callable[[str], None]) -> None:
    """Say it, a line for each node and each symbol. Raises `StoreUnavailable`."""
    store = RedisStore(settings, history=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        members = await store.members()
        nursery.cancel_scope.cancel()
    for line in describe(members):
        say(line)


def describe(members: Mapping[str, Member]) -> list[str]:
    """What to say of nodes that are there; by their names, and symbols in alphabetical order."""
    if not members:
        return ["no node is there"]
    nodes = sorted(members.values(), key=lambda member: member.name)
    width = max(len(member.name) for member in nodes)
    lines = [f"{'node':<{width}}  owns  follows"]
    lines += [f"{member.name:<{width}}  {len(member.owns):>4}  {len(member.wants):>7}" for member in nodes]
    owned = sorted((symbol, member.name) for member in nodes for symbol in member.owns)
    followed = {symbol for member in nodes for symbol in member.wants}
    owned += sorted((symbol, "nobody") for symbol in followed - {symbol for symbol, _ in owned})
    if owned:
        table = [("symbol", "owner"), *sorted(owned)]
        width = max(len(symbol) for symbol, _ in table)
        lines += ["", *(f"{symbol:<{width}}  {name}" for symbol, name in table)]
    return lines
