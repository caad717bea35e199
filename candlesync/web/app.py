"""The Quart-Trio application: the routes, errors in one shape, and CORS for everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from prometheus_client import CollectorRegistry
from quart import Blueprint, Response, has_request_context, request, websocket
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioWebsocket
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from candlesync.archive import Archive
from candlesync.binance.symbols import Symbols
from candlesync.errors import CandlesyncError
from candlesync.supervisor import Supervisor
from candlesync.web.access import Access
from candlesync.web.docs import docs_routes
from candlesync.web.health import Nodes, health_routes
from candlesync.web.history import History
from candlesync.web.live import Sockets, refuse
from candlesync.web.page import page_routes
from candlesync.web.ready import ReadyAnswers
from candlesync.web.refusal import EXPOSED, Refusal, refusal_of
from candlesync.web.requests import Requests
from candlesync.web.stopping import Stopping

_log = structlog.get_logger(__name__)

_KEPT = 10
"""Messages of a client that wait for the handler of its WebSocket; more wait with the client."""
_LONGEST_BODY = 64 * 1024
"""Bytes kept of a request's body, which nobody here reads: by Quart's own bound (16 MiB) ten clients that sent one
while they waited for a series to begin held 340 MB."""
_HOST = (b"host", b"candlesync")
_CROSS_ORIGIN = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
"""Headers of every answer; the second names those that a page of another origin may read."""


class _Buffer:
    """What a client has sent and the handler has not read, on Quart 0.23; Quart 0.22 keeps 10 messages by itself.

    Quart-Trio's own has no bound: a client that sends and does not read would fill the memory. And when the client
    leaves, the handler is cancelled, as on Quart 0.22; it need not be told in a second way.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[str | bytes | None](_KEPT)

    async def put(self, message: str | bytes | None) -> None:
        await self._send.send(message)

    async def get(self) -> str | bytes | None:
        return await self._receive.receive()

    def disconnect(self) -> None: ...


class _Websocket(TrioWebsocket):
    buffer_class = _Buffer


def create_app(
    supervisor: Supervisor,
    symbols: Symbols,
    sockets: Sockets,
    registry: CollectorRegistry,
    stopping: Stopping,
    *,
    archive: Archive,
    access: Access,
    requests: Requests,
    nodes: Nodes | None = None,
    doors: Iterable[Blueprint] = (),
    is_alive: Callable[[], bool] = lambda: True,
) -> QuartTrio:
    """The application over the parts that serve it, and the ``doors`` for programs that speak other protocols.

    ``stopping`` is set when the server goes down; ``nodes`` are those that share its store, if there are any;
    ``is_alive`` says whether the service behind it runs. ``access`` stands before all that answers, and ``requests``
    before that. ``archive`` has what is older than the store. ``doors`` are the routes of other APIs.
    """
    app = QuartTrio(__name__, static_folder=None)
    app.websocket_class = _Websocket
    app.config["MAX_CONTENT_LENGTH"] = _LONGEST_BODY
    # The path is the contract: no redirect from /candles/ to /candles, no HTML.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    history = History(supervisor, archive)
    probes = health_routes(supervisor, symbols, registry, stopping, nodes=nodes, is_alive=is_alive)
    _register(app, history.routes(), sockets.routes(), probes, page_routes(), docs_routes(access), *doors)

    _be_lenient(app)
    app.asgi_app = ReadyAnswers(app.asgi_app, supervisor, history, _CROSS_ORIGIN)  # type: ignore[method-assign] # as below

    @app.errorhandler(CandlesyncError)
    async def refused(error: CandlesyncError) -> Response:
        return refuse(refusal_of(error))

    @app.errorhandler(HTTPException)
    async def not_served(error: HTTPException) -> Response:
        status = error.code or 500
        if isinstance(error, WebsocketMismatch) and not has_request_context():
            status = 404  # what is there is no WebSocket
        match status:
            case 404:
                refusal = Refusal("not_found", "there is nothing at this path")
            case 405:
                refusal = Refusal("method_not_allowed", f"{request.method} is not understood at this path")
            case 400 if isinstance(error, WebsocketMismatch):
                refusal = Refusal("bad_request", "there is a WebSocket at this path: it needs an upgrade")
            case 500:
                refusal = Refusal("internal_error", "the server failed to answer")
            case _:
                refusal = Refusal("bad_request", error.description or "the request cannot be read")
        response = refuse(refusal)
        asked = request if has_request_context() else websocket
        response.set_data(access.body_of(refusal, asked.path))
        response.status_code = status
        for name, value in error.get_headers():
            if name.lower() == "allow":
                response.headers[name] = value
        return response

    _allow_all_origins(app)
    app.asgi_app = requests.before(access.before(app.asgi_app))  # type: ignore[method-assign] # Quart's documented place for middleware
    return app


def _allow_all_origins(app: QuartTrio) -> None:
    @app.after_request
    async def allow_all_origins(response: Response) -> Response:
        response.headers.update(_CROSS_ORIGIN)
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = request.headers.get(
                "Access-Control-Request-Headers", "*"
            )
            response.headers["Access-Control-Max-Age"] = "86400"
        return response


def _register(app: QuartTrio, *routes: Blueprint) -> None:
    for blueprint in routes:
        app.register_blueprint(blueprint)


def _be_lenient(app: QuartTrio) -> None:
    """Keep from Quart what makes it raise outside of any handler: a path that is empty, a host that is no name.

    Nothing here depends on the host.
    """
    serve = app.asgi_app

    async def lenient(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            scope["path"] = scope["path"] or "/"
            scope["headers"] = [*((name, value) for name, value in scope["headers"] if name != b"host"), _HOST]
        await serve(scope, receive, send)

    app.asgi_app = lenient  # type: ignore[method-assign] # Quart's documented place for middleware
