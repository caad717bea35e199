"""``/symbols``, ``/health``, ``/ready`` and ``/metrics``: what operators and front-ends ask of the server itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from quart import Blueprint, Response

from candlesync.binance.symbols import Symbols
from candlesync.core.interval import INTERVALS
from candlesync.web.stopping import Stopping

_encode = msgspec.json.Encoder().encode


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
    async def health() -> Response:
        # Invariant 10. The process ends with its service; where a server in between keeps it, it says so.
        return _json({"status": "alive"}) if is_alive() else _json({"status": "dead"}, 503)

    @routes.get("/ready")
    async def ready() -> Response:
        shared: dict[str, object] = {} if nodes is None else {"node": nodes.name, "owners": nodes.owners()}
        if nodes is not None and nodes.last_error:
            shared["store"] = nodes.last_error
        if not is_alive():
            return _json({"status": "dead", "series": {}, **shared}, 503)
        if stopping.is_set():
            return _json({"status": "stopping", "series": {}, **shared}, 503)
        reasons = readiness.not_ready()
        status = "not ready" if reasons else "ready"
        return _json({"status": status, "series": reasons, **shared}, 503 if reasons else 200)

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @routes.get("/symbols")
    async def listed() -> Response:
        infos = await symbols.all()
        return _json(
            {
                "intervals": [str(interval) for interval in INTERVALS],
                "symbols": [
                    {"symbol": info.symbol, "status": info.status, "base": info.base_asset, "quote": info.quote_asset}
                    for info in infos
                ],
            }
        )

    return routes


def _json(value: object, status: int = 200) -> Response:
    response = Response(_encode(value), status=status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response
