"""The HTTP client for Binance's REST API."""

from __future__ import annotations

import pytest

import candlesync
from candlesync.binance.rest_client import RestSettings, open_client


async def test_the_client_is_set_up_for_any_base_url() -> None:
    for base in ("http://127.0.0.1:1234/prefix", "http://127.0.0.1:1234/prefix/"):
        async with open_client(RestSettings(base_url=base, connect_timeout=3, read_timeout=4)) as client:
            request = client.build_request("GET", "/api/v3/klines")
            assert request.url == "http://127.0.0.1:1234/prefix/api/v3/klines"
            assert request.headers["User-Agent"] == f"candlesync/{candlesync.__version__}"
            assert (client.timeout.connect, client.timeout.read, client.timeout.pool) == (3, 4, 3)
            assert not client.follow_redirects


@pytest.mark.parametrize("base", ["api.binance.com", "ftp://x", "http://", "http://x/?a=b", "http://x/#f"])
def test_a_base_url_that_is_none(base: str) -> None:
    with pytest.raises(ValueError, match="the REST URL is"):
        open_client(RestSettings(base_url=base))
