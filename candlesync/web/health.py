"""``/symbols``, ``/health``, ``/ready`` and ``/metrics``: what operators and front-ends ask of the server itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from quart import Blueprint, Response

from candlesync.binance.symbols import Symbols
from candlesync.web.openapi import Operation, Reply, documented
from candlesync.web.shapes import Health, Listed, Listing, Ready
from candlesync.web.stopping import Stopping

_encode = msgspec.json.Encoder().encode


_HEALTH = Operation(
    "Server",
    "Whether the process is alive",
    (Reply(200, "It is", (Health,)), Reply(503, "What answers is alive, and the service behind it is not", (Health,))),
)
_READY = Operation(
    "Server",
    "Whether the server is ready",
    (
        Reply(200, "It is", (Ready,)),
        Reply(503, "A pinned series was never live or has not been for a while; or the server goes down", (Ready,)),
    ),
)
_METRICS = Operation("Server", "Metrics for Prometheus", (Reply(200, "They are", (str,), "text/plain"),))
_LISTING = Operation(
    "Candles",
    "The symbols that Binance lists, and the intervals",
    (Reply(200, "They are", (Listing,)),),
    errors=("upstream_unavailable",),
)


class Readiness(Protocol):
    """Who knows whether the server is ready (``supervisor.Supervisor``)."""

    def not_ready(self) -> dict[str, str]:
        """Why each pinned series that is not ready is not."""
        ...


class Nodes(Protocol):
    """Who knows which nodes share the store (``leases.SharedOwnership``)."""

    @property
    def name(self) -> str:
        """This node's name."""
        ...

    @property
    def last_error(self) -> str:
        """Why the store could not be asked the last time; empty when it could."""
        ...

    def owners(self) -> dict[str, str]:
        """The name of each symbol's owner, as far as this node knows."""
        ...


def health_routes(
    readiness: Readiness,
    symbols: Symbols,
    registry: CollectorRegistry,
    stopping: Stopping,
    *,
    nodes: Nodes | None = None,
    is_alive: Callable[[], bool] = lambda: True,
) -> Blueprint:
    """The routes. Without ``nodes`` this one shares its store with nobody. ``is_alive``: whether the service runs.

    Nothing here waits for anything but its turn: an answer says that the event loop turns, and how fast.
    """
    routes = Blueprint("health", __name__)

    @routes.get("/health")
    @documented(_HEALTH)
    async def health() -> Response:
        # Invariant 10. The process ends with its service; where a server in between keeps it, it says so.
        return _json(Health()) if is_alive() else _json(Health("dead"), 503)

    @routes.get("/ready")
    @documented(_READY)
    async def ready() -> Response:
        if not is_alive():
            answer = Ready("dead", {})
        elif stopping.is_set():
            answer = Ready("stopping", {})
        else:
            reasons = readiness.not_ready()
            answer = Ready("not ready" if reasons else "ready", reasons)
        if nodes is not None:
            store = nodes.last_error or msgspec.UNSET
            answer = msgspec.structs.replace(answer, node=nodes.name, owners=nodes.owners(), store=store)
        return _json(answer, 200 if answer.status == "ready" else 503)

    @routes.get("/metrics")
    @documented(_METRICS)
    async def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @routes.get("/symbols")
    @documented(_LISTING)
    async def listed() -> Response:
        infos = await symbols.all()
        listing = (Listed(info.symbol, info.status, info.base_asset, info.quote_asset) for info in infos)
        return _json(Listing(symbols.intervals, tuple(listing)))

    return routes


def _json(value: object, status: int = 200) -> Response:
    response = Response(_encode(value), status=status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response
