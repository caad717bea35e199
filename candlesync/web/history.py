"""REST: ``GET /candles/{symbol}/{interval}``, from the replica."""

from __future__ import annotations

from quart import Blueprint, Response, request

from candlesync.core import wire
from candlesync.supervisor import Supervisor
from candlesync.web.parameters import read_before, read_limit, read_series


def history_routes(supervisor: Supervisor) -> Blueprint:
    """The route, answered from what ``supervisor`` follows."""
    routes = Blueprint("history", __name__)

    @routes.get("/candles/<symbol>/<interval>")
    async def candles(symbol: str, interval: str) -> Response:
        series = read_series(symbol, interval)
        limit = read_limit(request.args.getlist("limit"))
        before = read_before(request.args.getlist("before"))
        topic = await supervisor.ensure(series)
        # From here on no await: body and headers are of one revision.
        replica = topic.replica
        etag = f"{replica.position}-{limit}" + ("" if before is None else f"-{before}")
        if request.if_none_match.contains_weak(etag):
            response = Response(b"", status=304)
            # Of a body that is not sent: they would replace those of the one that the client keeps (RFC 9110, 15.4.5).
            del response.headers["Content-Type"], response.headers["Content-Length"]
        else:
            body = wire.history(series, replica.newest(limit, before))
            response = Response(body, mimetype="application/json")
        response.set_etag(etag)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Candlesync-State"] = topic.state.value
        if before is None:
            response.headers["Candlesync-Position"] = str(replica.position)
        return response

    return routes
