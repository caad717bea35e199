"""``/``: the chart page, and the files that it and other front-ends load from ``/static/``.

The chart itself is TradingView's lightweight-charts, as the package ``litecharts`` carries it: the unmodified
standalone build. The page names its hash, so a browser runs that build and no other.
"""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from hashlib import sha256
from importlib import metadata, resources

from quart import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from candlesync.web.history import read_codings

_CHARTS = "lightweight-charts.js"
FILES = {
    "page.js": "text/javascript",
    "search.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "candlesync.js": "text/javascript",
    "grafana.json": "application/json",
    _CHARTS: "text/javascript",
}
"""What is below ``/static/``, and of which type."""
_TYPES = {"page.html": "text/html", **FILES}


def page_routes() -> Blueprint:
    """The page and its files."""
    routes = Blueprint("page", __name__)
    folder = resources.files("candlesync.web") / "static"
    bodies = {name: (folder / name).read_bytes() for name in _TYPES if name != _CHARTS} | {_CHARTS: _charts()}
    compressed = {name: gzip.compress(body, mtime=0) for name, body in bodies.items()}
    policy = _policy(bodies[_CHARTS].decode())

    def serve(name: str) -> Response:
        coding = read_codings(request.headers.get("Accept-Encoding"))[0]
        body = compressed[name] if coding == "gzip" else bodies[name]
        response = Response(body, mimetype=_TYPES[name])
        if coding == "gzip":
            response.headers["Content-Encoding"] = coding
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"  # the page's address may have a token in it
        # Asked about each time, and seldom sent: a page and its files are always of one version.
        response.headers["Cache-Control"] = "no-cache"
        tag = sha256(body).hexdigest()[:32]
        response.set_etag(tag)
        if request.if_none_match.contains_weak(tag):
            response.status_code = 304
            response.set_data(b"")
        return response

    @routes.get("/")
    async def page() -> Response:
        return serve("page.html")

    @routes.get("/static/<name>")
    async def file(name: str) -> Response:
        if name not in FILES:
            raise NotFound
        return serve(name)

    return routes


def _charts() -> bytes:
    """The standalone build; without importing the package, which is a program of its own."""
    file = metadata.distribution("litecharts").locate_file(f"litecharts/js/{_CHARTS}")
    with open(str(file), "rb") as stream:  # noqa: PTH123 - no Path: distributions locate what they like
        return stream.read()


def _policy(charts: str) -> str:
    """Nothing is loaded from, or sent to, another host; and nothing that stands in the page itself is run.

    But for one style: that of lightweight-charts' attribution, which its licence asks to be shown, and which it puts
    into the page by itself. It is allowed by its hash.
    """
    styles = re.findall(r'innerText="(a#tv-attr-logo[^"]*)"', charts)
    hashes = "".join(f" 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" for style in styles)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'{hashes}; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
