"""The pages, ``/`` with the chart and ``/docs`` with all of REST, and the files below ``/static/`` that they and other
front-ends load.

The chart itself is TradingView's lightweight-charts, as the package ``litecharts`` carries it: the unmodified
standalone build. ``/docs`` shows ``/openapi.json`` with Swagger UI, as the package ``flask-swagger-ui`` carries it: the
files of npm's ``swagger-ui-dist``. The pages name their hashes, so a browser runs these builds and no others.
"""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import metadata, resources

from quart import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from candlesync.web.history import read_codings

_CHARTS = "lightweight-charts.js"
_FOREIGN = {
    _CHARTS: ("litecharts", f"litecharts/js/{_CHARTS}"),
    "swagger-ui-bundle.js": ("flask-swagger-ui", "flask_swagger_ui/dist/swagger-ui-bundle.js"),
    "swagger-ui.css": ("flask-swagger-ui", "flask_swagger_ui/dist/swagger-ui.css"),
}
"""Files that other packages carry: which, and where. Their code is not run: each is a program of its own."""
FILES = {
    "page.js": "text/javascript",
    "search.js": "text/javascript",
    "docs.js": "text/javascript",
    "docs.css": "text/css",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "candlesync.js": "text/javascript",
    "grafana.json": "application/json",
    _CHARTS: "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
"""What is below ``/static/``, and of which type."""
_TYPES = {"page.html": "text/html", "docs.html": "text/html", **FILES}


def page_routes() -> Blueprint:
    """The pages and their files."""
    routes = Blueprint("page", __name__)

    def serve(name: str) -> Response:
        coding = read_codings(request.headers.get("Accept-Encoding"))[0]
        body = _compressed(name) if coding == "gzip" else _body(name)
        response = Response(body, mimetype=_TYPES[name])
        if coding == "gzip":
            response.headers["Content-Encoding"] = coding
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Content-Security-Policy"] = _policy(images="data:" if name == "docs.html" else "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"  # the page's address may have a token in it
        # Asked about each time, and seldom sent: a page and its files are always of one version.
        response.headers["Cache-Control"] = "no-cache"
        tag = _tag(name, coding)
        response.set_etag(tag)
        if request.if_none_match.contains_weak(tag):
            response.status_code = 304
            response.set_data(b"")
        return response

    @routes.get("/")
    async def page() -> Response:
        return serve("page.html")

    @routes.get("/docs")
    async def docs() -> Response:
        return serve("docs.html")

    @routes.get("/static/<name>")
    async def file(name: str) -> Response:
        if name not in FILES:
            raise NotFound
        return serve(name)

    return routes


@cache
def _body(name: str) -> bytes:
    """A file, as it is; read when it is first asked for."""
    if name not in _FOREIGN:
        return (resources.files("candlesync.web") / "static" / name).read_bytes()
    package, path = _FOREIGN[name]
    with open(str(metadata.distribution(package).locate_file(path)), "rb") as stream:  # noqa: PTH123 - no Path: distributions locate what they like
        return stream.read()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_body(name), mtime=0)


@cache
def _tag(name: str, coding: str) -> str:
    return sha256(_compressed(name) if coding == "gzip" else _body(name)).hexdigest()[:32]


@cache
def _policy(images: str) -> str:
    """Nothing is loaded from, or sent to, another host; and nothing that stands in the page itself is run.

    But for one style: that of lightweight-charts' attribution, which its licence asks to be shown, and which it puts
    into the page by itself. It is allowed by its hash.
    """
    styles = re.findall(r'innerText="(a#tv-attr-logo[^"]*)"', _body(_CHARTS).decode())
    sources = f"'self' {images}".strip()
    hashes = "".join(f" 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" for style in styles)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'{hashes}; connect-src 'self'; img-src {sources}; "
        "base-uri 'none'; form-action 'none'"
    )
