"""The chart page's files over HTTP; what they do in a browser is in tests/whole/test_page.py."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from hashlib import sha256, sha384

import pytest

from tests.web.builders import Web

FILES = (
    *("candlesync.js", "docs.css", "docs.js", "icon.svg", "lightweight-charts.js", "page.css", "page.js", "search.js"),
    *("swagger-ui-bundle.js", "swagger-ui.css"),
)


async def test_the_page_loads_nothing_from_elsewhere() -> None:
    web = Web()
    page = await web.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Referrer-Policy"] == "no-referrer", "a token in its address is for nobody else"
    loaded = re.findall(rb'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', page.body)
    assert set(loaded) == {b"static/icon.svg", b"static/lightweight-charts.js", b"static/page.css", b"static/page.js"}
    imported: set[str] = set()
    for name in ("page.js", "search.js", "candlesync.js"):
        text = (await web.get(f"/static/{name}")).body.decode()
        imported.update(re.findall(r'^import .* from "([^"]+)";$', text, re.MULTILINE))
    assert imported == {"./candlesync.js", "./search.js"}


async def test_the_policy_allows_the_page_itself_and_nothing_else() -> None:
    policy = (await Web().get("/")).headers["Content-Security-Policy"].split("; ")
    charts = (await Web().get("/static/lightweight-charts.js")).body.decode()
    style = re.search(r'"(a#tv-attr-logo\{[^"]*)"', charts)
    assert style is not None
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    assert policy == [
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{digest}'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


async def test_the_page_names_the_hash_of_the_charts_and_shows_their_notice() -> None:
    page = (await Web().get("/")).body.decode()
    charts = (await Web().get("/static/lightweight-charts.js")).body
    assert f'integrity="sha384-{b64encode(sha384(charts).digest()).decode()}"' in page
    assert b"Lightweight Charts\xe2\x84\xa2 v5.1.0" in charts[:200]
    assert "TradingView Lightweight Charts™, Copyright © 2025 TradingView, Inc." in page
    assert "https://www.tradingview.com/" in page


async def test_the_page_of_rest_loads_nothing_from_elsewhere_and_names_the_hashes() -> None:
    web = Web()
    page = await web.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Referrer-Policy"] == "no-referrer"
    # Swagger UI has its icons in its style sheet; all else is as for the chart.
    chart = (await web.get("/")).headers["Content-Security-Policy"]
    assert page.headers["Content-Security-Policy"] == chart.replace("img-src 'self'", "img-src 'self' data:")
    text = page.body.decode()
    loaded = dict(re.findall(r'<(?:script|link)[^>]* (?:src|href)="static/([^"]+)"(?: integrity="([^"]+)")?', text))
    assert set(loaded) == {"icon.svg", "docs.css", "docs.js", "swagger-ui-bundle.js", "swagger-ui.css"}
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        body = (await web.get(f"/static/{name}")).body
        assert loaded[name] == f"sha384-{b64encode(sha384(body).digest()).decode()}"
    assert "Copyright 2017 SmartBear Software" in text
    assert "Apache License 2.0" in text


@pytest.mark.parametrize("name", FILES)
async def test_a_file_has_its_type_and_can_be_read_by_front_ends_of_other_origins(name: str) -> None:
    answer = await Web().get(f"/static/{name}", Origin="https://chart.example")
    assert answer.status == 200
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["Content-Type"].startswith(kinds[name.rpartition(".")[2]])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/", "/docs", "/static/page.js", "/static/lightweight-charts.js"])
async def test_a_file_that_has_not_changed_is_not_sent_again(path: str) -> None:
    web = Web()
    plain, small = await web.get(path), await web.get(path, Accept_Encoding="gzip, br")
    assert gzip.decompress(small.body) == plain.body
    assert (small.headers["Content-Encoding"], small.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert plain.headers["ETag"] != small.headers["ETag"]
    assert plain.headers["Cache-Control"] == "no-cache"
    again = await web.get(path, Accept_Encoding="gzip", If_None_Match=small.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", small.headers["ETag"])
    assert (await web.get(path, If_None_Match='"other"')).status == 200


@pytest.mark.parametrize("name", ["", "page.html", "nope.js", "../page.py"])
async def test_what_is_not_there(name: str) -> None:
    answer = await Web().get(f"/static/{name}")
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
