"""Two nodes with one Redis: from a commit on the one to a frame of the other, and the other's REST.

upstream ──frame──▶ owner ──commit──▶ Redis ──announcement──▶ follower ──frame──▶ client
                      └──frame──▶ client  └──▶ this process, which so knows when the commit stood
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from . import market
from .crowd import Crowd
from .delivery import judge, lags, percentile
from .findings import Findings, Settings
from .measure import broadcast, end, judge_share, judge_upstream, measure_rest
from .notes import Notes
from .processes import UpstreamProcess
from .servers import Contender, NotReady, Server
from .upstream import Sent
from .valkey import Listener, Valkey

_AGREEMENT = 20.0
"""Seconds until both nodes must name the same owner."""

Messages = Sequence[tuple[int, bytes]]


def measure_nodes(contender: Contender, settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start two nodes with a Redis and an upstream, measure, stop them; what was found goes to ``findings``."""
    notes = Notes(contender.label, run, findings)
    with ExitStack() as stack:
        redis = stack.enter_context(Valkey(logs / f"valkey-{contender.name}-{run}.log"))
        upstream = stack.enter_context(UpstreamProcess(logs / f"upstream-nodes-{contender.name}-{run}.log"))
        nodes: list[Server] = []
        try:
            for name in ("first", "second"):
                log = logs / f"{contender.name}-{name}-{run}.log"
                nodes.append(stack.enter_context(Server(contender, upstream.port, log, redis=redis.port, name=name)))
            owner, follower = _roles(nodes)
            _follow((owner, follower), upstream, redis, settings, notes)
            measure_rest(follower, upstream, settings.seconds / 6, notes, figure="follower_rest", redis=redis)
            nodes = [follower, owner]  # the follower first: it must not take over while it ends
        except (NotReady, OSError, RuntimeError, HTTPException) as error:
            notes.fault(f"{error!r}")
        for node in nodes:
            end(node, notes)


def _roles(nodes: Sequence[Server]) -> tuple[Server, Server]:
    """The owner and the follower. Raises `NotReady` when they do not agree, and `OSError` or `HTTPException`."""
    deadline = time.monotonic() + _AGREEMENT
    named: list[str | None] = []
    while time.monotonic() < deadline:
        named = [json.loads(node.get("/ready")[1])["owners"].get(market.SYMBOL) for node in nodes]
        first, second = nodes
        for owner, follower in ((first, second), (second, first)):
            if named == [owner.name, owner.name]:
                return owner, follower
        time.sleep(0.05)
    raise NotReady(f"the nodes do not agree on an owner: {named}")


def _follow(
    pair: tuple[Server, Server], upstream: UpstreamProcess, redis: Valkey, settings: Settings, notes: Notes
) -> None:
    """Delays of each commit, to one client of the owner and one of the follower."""
    owner, follower = pair
    rate, contender = settings.commit_rate, owner.contender
    listener = Listener(redis.port)
    with Crowd([owner.port, follower.port], contender.socket_path, [listener]) as crowd:
        nodes = [owner.pid, follower.pid]
        sent, spent = broadcast(crowd, upstream, rate, settings.commit_seconds, servers=nodes, redis=redis)
        owners, followers = crowd.messages()
        commits = [
            (heard_at, update)
            for heard_at, message in listener.messages()
            if (update := contender.announced_update(message)) is not None and update >= sent.first
        ]
        if crowd.lost:
            notes.fault(f"{crowd.lost} of 2 clients were cut off")
    notes.findings.messages += len(owners) + len(followers)
    for fault in _faults(sent, commits, owners, followers):
        notes.fault(fault)
    frames = list(zip(sent.sent_at, range(sent.first, sent.last + 1), strict=True))
    for figure, begins, client in (
        ("commit_owner", commits, owners),
        ("commit_follower", commits, followers),
        ("frame_follower", frames, followers),
    ):
        delays = lags(begins, client)
        if delays:
            notes.add(f"{figure}_p50", percentile(delays, 0.50) * 1e3, spent)
            notes.add(f"{figure}_p99", percentile(delays, 0.99) * 1e3, spent)
    notes.add("nodes_cpu", (spent.server + spent.redis) * spent.seconds / len(sent.sent_at) * 1e6, spent)
    judge_share(min(len(owners), len(followers)) / len(sent.sent_at), notes)
    judge_upstream(sent, rate, notes)
    notes.judge_load(spent)


def _faults(sent: Sent, commits: Sequence[tuple[int, int]], owners: Messages, followers: Messages) -> list[str]:
    faults = judge(sent, (owners, followers)).faults
    if not commits or commits[-1][1] != sent.last:
        faults.append("no last update in Redis")
    shown = {market.update_of(message): message for _, message in owners}
    if any(shown.get(market.update_of(message), message) != message for _, message in followers):
        faults.append("a follower that shows an update in another way than its owner")
    return faults
