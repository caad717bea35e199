"""``/``: the chart page."""

from __future__ import annotations

from importlib import resources

from quart import Blueprint, Response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Nothing is loaded from, or sent to, another host."""
_TYPES = {"page.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}


def page_routes() -> Blueprint:
    """The page and its two files."""
    routes = Blueprint("page", __name__)
    folder = resources.files("candlesync.web") / "static"
    files = {name: (folder / name).read_bytes() for name in _TYPES}

    def serve(name: str) -> Response:
        response = Response(files[name], mimetype=_TYPES[name])
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"  # the page's address may have a token in it
        response.headers["Cache-Control"] = "no-cache"
        return response

    @routes.get("/")
    async def page() -> Response:
        return serve("page.html")

    @routes.get("/static/page.js")
    async def script() -> Response:
        return serve("page.js")

    @routes.get("/static/page.css")
    async def style() -> Response:
        return serve("page.css")

    return routes
