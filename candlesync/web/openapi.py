"""The OpenAPI document, made from the routes that serve.

Each route says beside itself what it takes and gives (`documented`); its path and its methods come from the
application's own map of routes, the schemas of bodies from the types, the bounds of parameters from the constants that
their readers check (``web.parameters``), and the statuses of errors from the table that answers have them from
(`web.refusal.STATUSES`). A test asks each bound of the server itself, and that each route is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from quart import Quart
from werkzeug.routing import Rule

import candlesync
from candlesync.web.refusal import STATUSES

VERSION = "3.1.0"
"""Of OpenAPI; its schemas are JSON Schema 2020-12, which msgspec writes."""
DESCRIPTION = """\
Candles from Binance, brought in sync and whole before anybody gets them: no minute is missing, wrong, or goes back in
time. This is all of REST; the WebSockets, which OpenAPI cannot describe, in short:

* `/ws/candles/{symbol}?interval=1m` sends one candle a message, as `GET /candles/…` has them: first the replay
  (`replay=N`, 5 by default, 0 to 1000; or `since=TIME`; or `position=POS`, from where this client has everything), then
  live, with nothing lost or out of order between the two.
* `/ws/candles` takes many series on one socket: `{"op":"subscribe","symbol":"BTCUSDT","interval":"1m","id":1}`, with at
  most one of `replay`, `since` and `position`; `{"op":"unsubscribe",…}`; `{"op":"ping"}`. It answers each, and says
  `{"op":"state",…}` when a series is no longer, or again, `live`.
* `/binance/ws/…` and `/binance/stream?streams=…` are Binance's own streams of candles, for programs that follow those.

A message that leaves its client with everything ends with `"position"`. What is wrong with a request closes the socket
with 4000 + the status and the error's code as the reason; limits, access and 503 are refused before the upgrade.

Numbers are Binance's own decimals, digit for digit; times are UNIX seconds, UTC, and below `/binance` milliseconds.
"""

Schema = dict[str, Any]


class ErrorDetails(msgspec.Struct, frozen=True):
    """What was wrong."""

    code: Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(STATUSES)})]
    message: str


class Error(msgspec.Struct, frozen=True):
    """How errors are told."""

    error: ErrorDetails


class Parameter(msgspec.Struct, frozen=True):
    """What a route takes."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Schema
    example: Any = None
    required: bool = False
    """A path's always are."""

    def describe(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        required = self.required or self.place == "path"
        shown = {"name": self.name, "in": self.place, "description": self.description, "required": required}
        return {**shown, "schema": self.schema, **({} if self.example is None else {"example": self.example})}


class Header(msgspec.Struct, frozen=True):
    """A header of an answer."""

    name: str
    description: str
    schema: Schema
    required: bool = True


class Reply(msgspec.Struct, frozen=True):
    """What a route gives."""

    status: int
    description: str
    bodies: tuple[Any, ...] = ()
    """Types of which the body is one; none: there is no body."""
    media: str = "application/json"
    headers: tuple[Header, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """What a route does, in the words of OpenAPI."""

    tag: str
    summary: str
    replies: tuple[Reply, ...]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    """Codes of `STATUSES` that it may refuse with, beside those that any may."""
    error_body: Any = Error
    """In which form."""


RETRY_AFTER = Header(
    "Retry-After", "Whole seconds after which asking again makes sense.", {"type": "integer", "minimum": 1}
)
_RETRIED = frozenset({429, 503})
_ANYWHERE = ("too_many", "internal_error")
"""Codes of errors that any route may answer with, in its own form."""
_UNREAD = ("server_full",)
"""The same, of answers that are given before a path is read: always in the one form of errors."""

_Route = TypeVar("_Route", bound=Callable[..., Any])
_operations: WeakKeyDictionary[Callable[..., Any], Operation] = WeakKeyDictionary()


def documented(operation: Operation) -> Callable[[_Route], _Route]:
    """Say what a route does; below the decorator that makes it one."""

    def remember(route: _Route) -> _Route:
        _operations[route] = operation
        return route

    return remember


def operations(app: Quart) -> Iterator[tuple[Rule, Operation | None]]:
    """The HTTP routes of an application, each with what it says of itself."""
    for rule in app.url_map.iter_rules():
        if not rule.websocket:
            yield rule, _operations.get(app.view_functions[rule.endpoint])


def document(app: Quart, *, without_token: Iterable[str] = (), has_tokens: bool, has_origins: bool) -> dict[str, Any]:
    """The document of an application. ``without_token``: paths that need none where the others do."""
    schemas = _Schemas()
    anywhere = (*_ANYWHERE, *(("unauthorized",) if has_tokens else ()), *(("forbidden",) if has_origins else ()))
    paths: dict[str, dict[str, Any]] = {}
    for rule, operation in operations(app):
        if operation is None:
            continue
        path = re.sub(r"<(?:[^<>:]+:)?([^<>:]+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):  # those come with GET, everywhere
            described = _describe(operation, schemas, anywhere)
            described["operationId"] = rule.endpoint.replace(".", "_")
            if has_tokens and path in without_token:
                described["security"] = []
            paths.setdefault(path, {})[method.lower()] = described
    made: dict[str, Any] = {
        "openapi": VERSION,
        "info": {"title": "candlesync", "version": candlesync.__version__, "description": DESCRIPTION},
        "servers": [{"url": ".", "description": "this server"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas.components()},
    }
    if has_tokens:
        made["security"] = [{"bearer": []}, {"token": []}]
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "token": {"type": "apiKey", "in": "query", "name": "token", "description": "Where no header can be set."},
        }
    return made


class _Schemas:
    """The types of bodies, of which schemas are made all together."""

    def __init__(self) -> None:
        self._components: dict[str, Any] = {}

    def refer(self, body: Any) -> Schema:
        """The schema of a type, by reference."""
        (schema,), components = msgspec.json.schema_components([body], ref_template="#/components/schemas/{name}")
        for name, component in components.items():
            if self._components.setdefault(name, component) != component:
                raise ValueError(f"two types of bodies are called {name}")
        return schema

    def components(self) -> dict[str, Any]:
        return dict(sorted(self._components.items()))


def _describe(operation: Operation, schemas: _Schemas, anywhere: Iterable[str]) -> dict[str, Any]:
    replies: dict[int, list[Reply]] = {}
    refusals = (
        *_refusals(operation.errors, operation.error_body),
        *_refusals(anywhere, operation.error_body),
        *_refusals(_UNREAD, Error),
    )
    for reply in (*operation.replies, *refusals):
        replies.setdefault(reply.status, []).append(reply)
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [parameter.describe() for parameter in operation.parameters],
        "responses": {str(status): _join(alike, schemas) for status, alike in sorted(replies.items())},
    }
    if operation.description:
        described["description"] = operation.description
    return described


def _refusals(codes: Iterable[str], body: Any) -> Iterable[Reply]:
    """The replies of error codes, one a status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUSES[code], []).append(f"`{code}`")
    for status, names in by_status.items():
        headers = (RETRY_AFTER,) if status in _RETRIED else ()
        yield Reply(status, f"{HTTPStatus(status).phrase}: {', '.join(names)}", (body,), headers=headers)


def _join(replies: list[Reply], schemas: _Schemas) -> dict[str, Any]:
    """What OpenAPI says of a status, which may come for several reasons."""
    described: dict[str, Any] = {"description": "; ".join(dict.fromkeys(reply.description for reply in replies))}
    media: dict[str, list[Schema]] = {}
    headers: dict[str, Any] = {}
    for reply in replies:
        for body in reply.bodies:
            known = media.setdefault(reply.media, [])
            if (schema := schemas.refer(body)) not in known:
                known.append(schema)
        for header in reply.headers:
            # It is sure to be there only if it is for whatever reason the status comes.
            always = header.required and all(header in other.headers for other in replies)
            headers[header.name] = {"description": header.description, "required": always, "schema": header.schema}
    if media:
        described["content"] = {
            kind: {"schema": known[0] if len(known) == 1 else {"anyOf": known}} for kind, known in media.items()
        }
    if headers:
        described["headers"] = headers
    return described
