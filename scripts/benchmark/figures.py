"""The figures of the report: what each is called, in which unit, and which way is better. Nothing else lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Something that is measured of every server."""

    name: str
    title: str
    unit: str
    is_better: str
    """Which way is better, lower or higher; empty where it is only to be known."""
    cores: tuple[str, ...] = ("server", "load")
    """Whose cores stand beside it: names of `CORES`."""


@dataclass(frozen=True)
class Part:
    """Figures of one kind."""

    title: str
    about: str
    """How they were measured; ``{clients}`` and so on are the `Settings`."""
    figures: tuple[Figure, ...]


CORES = {
    "server": "server's cores",
    "nodes": "both nodes' cores",
    "load": "load's cores",
    "redis": "Redis's cores",
    "upstream": "exchange's cores",
}
"""Whose cores may stand beside a figure, and how that is called."""
COST = "Cost against size"
_SHARED = ("server", "redis")
_BOTH = ("nodes", "redis", "load")
_FLOOD = ("server", "upstream")
_FROM_FRAME = "From the upstream's sending a frame to a client's having read it"
_TO_OWNER = "From a commit's standing in Redis to a client of the node that made it"
_TO_FOLLOWER = "From a commit's standing in Redis to a client of the other node"


def _audience(title: str, about: str, figures: str) -> Part:
    """A broadcast like the first, to others."""
    return Part(
        title,
        about,
        (
            Figure(f"{figures}cpu", f"{title}: server CPU for each message delivered", "µs", "lower"),
            Figure(f"{figures}p50", f"{title}: {_FROM_FRAME.lower()}, p50", "ms", "lower"),
            Figure(f"{figures}p99", f"{title}: {_FROM_FRAME.lower()}, p99", "ms", "lower"),
            Figure(f"{figures}delivered", f"{title}: messages delivered, of all", "%", ""),
            Figure(f"{figures}wire_size", f"{title}: bytes sent for a message", "bytes", ""),
            Figure(f"{figures}deflated", f"{title}: clients with which compression was agreed on", "%", ""),
        ),
    )


_AUDIENCES = (
    _audience(
        "Compression offered",
        "The same with clients that offer permessage-deflate, as browsers do; a server may decline it.",
        "deflate_",
    ),
    _audience("Many clients", "{many_clients} clients, {many_rate:g} updates a second for {seconds:g} s.", "many_"),
    _audience(
        "Many series",
        "{clients} clients with {series} series on each socket, {series_rate:g} updates a second of each series.",
        "series_",
    ),
)


def _delays(figures: str, where: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{figures}p50", f"{_FROM_FRAME}, {where}, p50", "ms", "lower"),
        Figure(f"{figures}p99", f"{_FROM_FRAME}, {where}, p99", "ms", "lower"),
        Figure(f"{figures}rate", f"Updates a second, {where}", "1/s", ""),
        Figure(f"{figures}delivered", f"Messages delivered, {where}", "%", ""),
    )


def _frames(series: int) -> tuple[Figure, ...]:
    where = f"{series} series"
    return (
        Figure(f"frames_{series}", f"{where}: frames for each second of CPU", "1/s", "higher", _FLOOD),
        Figure(f"frames_read_{series}", f"{where}: the same with those that were replaced uncommitted", "1/s", ""),
        Figure(f"frames_done_{series}", f"{where}: committed, of all frames", "%", ""),
        Figure(f"frames_wall_{series}", f"{where}: frames a second", "1/s", "higher", _FLOOD),
    )


PARTS = (
    Part(
        "One server",
        "{clients} WebSocket clients, {rate:g} updates a second for {seconds:g} s.",
        (
            Figure("cpu", "Server CPU for each message delivered, all included", "µs", "lower"),
            Figure("p50", f"{_FROM_FRAME}, p50", "ms", "lower"),
            Figure("p99", f"{_FROM_FRAME}, p99", "ms", "lower"),
            Figure("rest", "REST, 1000 candles: requests a second", "1/s", "higher"),
            Figure("rest_core", "REST, 1000 candles: requests for each second of server CPU", "1/s", "higher"),
            Figure("delivered", "Messages delivered, of all updates to all clients", "%", ""),
            Figure("message_size", "Size of a WebSocket message", "bytes", ""),
            Figure("rest_size", "REST, 1000 candles: size of an answer", "kB", ""),
        ),
    ),
    *_AUDIENCES,
    Part(
        "From frame to frame",
        "{clients} WebSocket clients, for {seconds:g} s: at the rate that takes a peer half a core, which is found in "
        "each run, and candlesync alone at 150 updates a second.",
        (
            *_delays("half_fastapi_", "at FastAPI's half a core"),
            *_delays("half_fastapi-uvloop_", "at FastAPI's half a core, on uvloop"),
            *_delays("only_", "alone"),
        ),
    ),
    Part(
        "Two nodes with one Redis",
        "A WebSocket client of each node, {commit_rate:g} updates a second for {commit_seconds:g} s; REST of the one "
        "that follows. A peer's REST reads Redis for each answer, candlesync's its own copy.",
        (
            Figure("commit_follower_p50", f"{_TO_FOLLOWER}, p50", "ms", "lower", _BOTH),
            Figure("commit_follower_p99", f"{_TO_FOLLOWER}, p99", "ms", "lower", _BOTH),
            Figure("commit_owner_p50", f"{_TO_OWNER}, p50", "ms", "lower", _BOTH),
            Figure("commit_owner_p99", f"{_TO_OWNER}, p99", "ms", "lower", _BOTH),
            Figure("frame_follower_p50", f"{_FROM_FRAME} on the other node, p50", "ms", "lower", _BOTH),
            Figure("frame_follower_p99", f"{_FROM_FRAME} on the other node, p99", "ms", "lower", _BOTH),
            Figure("nodes_cpu", "CPU of both nodes and Redis for each update", "µs", "lower", _BOTH),
            Figure("follower_rest", "REST, 1000 candles: requests a second", "1/s", "higher", (*_SHARED, "load")),
            Figure(
                "follower_rest_core",
                "REST, 1000 candles: requests for each second of the node's CPU",
                "1/s",
                "higher",
                (*_SHARED, "load"),
            ),
            Figure("follower_rest_size", "REST, 1000 candles: size of an answer", "kB", ""),
        ),
    ),
    Part(
        "The store in Redis",
        "500 series of 1000 candles, in one process; each commits again as soon as its last commit stands. The peers "
        "write and publish the same bytes, and check nothing.",
        (
            Figure("commits", "Commits a second", "1/s", "higher", _SHARED),
            Figure("commit_cpu", "CPU of the process for each commit", "µs", "lower", _SHARED),
            Figure("commit_redis", "CPU of Redis for each commit", "µs", "lower", _SHARED),
            Figure("alone_p50", "A commit when nothing else is committed, p50", "ms", "lower", _SHARED),
            Figure("alone_p99", "A commit when nothing else is committed, p99", "ms", "lower", _SHARED),
            Figure("read", "Reading a series, p50", "ms", ""),
            Figure("series_size", "Memory of Redis for a series", "kB", ""),
        ),
    ),
    Part(
        "REST on one core",
        "Each server pinned to a core of its own, 4 connections; requests for each second of the server's CPU. FastAPI "
        "reads its thousand items from Redis, whose CPU is not counted; the bare ASGI application has candlesync's own "
        "body ready.",
        (
            Figure("one_core", "1000 candles", "1/s", "higher", (*_SHARED, "load")),
            Figure("one_core_quart", "1000 candles, by a request that goes through Quart", "1/s", "higher"),
            Figure("one_core_gzip", "1000 candles as gzip", "1/s", "higher"),
            Figure("one_core_304", "1000 candles that the client has already: 304", "1/s", "higher"),
            Figure("one_core_size", "Size of an answer", "kB", ""),
            Figure("one_core_gzip_size", "Size of an answer as gzip", "kB", ""),
        ),
    ),
    Part(
        "From Binance's frame to a commit",
        "No clients; each server pinned to a core of its own. Frames as fast as they are taken, on one connection: all "
        "of one series, or of 50 in turn. Counted is what was committed and published, of trio-websocket alone what it "
        "has read.",
        (
            *_frames(1),
            *_frames(50),
        ),
    ),
    Part(
        "Memory",
        "Growth of the server's resident set, divided by the clients or the series that came. Candlesync's clients "
        "have had a replay and updates, Quart's nothing; each series has been updated, and asked for over REST.",
        (
            Figure("memory_client", "A client", "KiB", "lower", ("server",)),
            Figure("memory_series", "A series of 1000 candles", "KiB", "lower", ("server",)),
        ),
    ),
    Part(
        COST,
        "The server pinned to a core of its own. Each client follows one series. ``CPU = a × commits + b × messages``, "
        "fitted over all sizes by the least sum of squares of relative errors.",
        (
            Figure("cost_commit", "a: CPU for each commit", "µs", "lower"),
            Figure("cost_message", "b: CPU for each message", "µs", "lower"),
            Figure("cost_worst", "The largest difference of a size from the fit", "%", ""),
            Figure("cost_excess", "The largest sizes above what the smaller ones alone foretell", "%", ""),
        ),
    ),
)
