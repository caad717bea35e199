"""``/openapi.json``: what all of REST takes and gives, for people, programs and ``/docs``."""

from __future__ import annotations

import msgspec
from quart import Blueprint, Response, current_app

from candlesync.web.access import OPEN, Access
from candlesync.web.openapi import document


def docs_routes(access: Access) -> Blueprint:
    """The route."""
    routes = Blueprint("docs", __name__)
    made: list[bytes] = []

    @routes.get("/openapi.json")
    async def openapi() -> Response:
        # When it is first asked for: the routes are all there by then, and do not change.
        if not made:
            described = document(
                current_app, without_token=OPEN, has_tokens=access.has_tokens, has_origins=access.has_origins
            )
            made.append(msgspec.json.encode(described))
        response = Response(made[0], mimetype="application/json")
        response.headers["Cache-Control"] = "no-cache"
        return response

    return routes
