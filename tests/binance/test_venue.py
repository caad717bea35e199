"""The table of venues, and which of a venue's hosts is asked."""

from __future__ import annotations

import pytest
import structlog.testing

from candlesync.binance.hosts import Hosts
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings, combined_url
from candlesync.binance.venue import SPOT, SPOT_US, USDM, VENUES, Venue
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.store.codec import Keys

BTC = Series("BTCUSDT", Interval.M1)


def test_spot_is_the_default() -> None:
    assert RestSettings().venue is StreamSettings().venue is SPOT
    assert list(VENUES) == ["spot", "spot-us", "usdm"]


@pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES)
def test_the_table_holds_together(venue: Venue) -> None:
    rows = [rows for rows, _ in venue.klines_weights]
    assert rows == sorted(rows)
    assert rows[-1] == venue.page_limit
    settings = RestSettings(venue=venue)
    assert settings.page_limit <= venue.page_limit
    # What all venues are asked for is not dearer by the row than what a venue allows at most.
    asked = settings.page_limit / venue.klines_weight(settings.page_limit)
    assert asked >= venue.page_limit / venue.klines_weight(venue.page_limit)
    assert StreamSettings(venue=venue).urls == venue.stream_urls
    assert len(venue.rest_urls) == len(venue.stream_urls)


@pytest.mark.parametrize(
    ("limit", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_a_futures_page_weighs_by_its_limit(limit: int, weight: int) -> None:
    assert USDM.klines_weight(limit) == weight


@pytest.mark.parametrize("limit", [1, 500, 1000])
def test_a_spot_page_always_weighs_the_same(limit: int) -> None:
    assert (SPOT.klines_weight(limit), SPOT_US.klines_weight(limit)) == (2, 1)


def test_paths_and_stream_urls() -> None:
    assert [venue.path("klines") for venue in VENUES.values()] == [
        "/api/v3/klines",
        "/api/v3/klines",
        "/fapi/v1/klines",
    ]
    name = "btcusdt@kline_1m"
    assert [combined_url(venue.stream_urls[0], [BTC]) for venue in VENUES.values()] == [
        f"wss://stream.binance.com:9443/stream?streams={name}",
        f"wss://stream.binance.us:9443/stream?streams={name}",
        f"wss://fstream.binance.com/market/stream?streams={name}",
    ]


def test_only_binance_com_has_candles_of_seconds() -> None:
    assert SPOT.intervals == INTERVALS
    assert SPOT_US.intervals == USDM.intervals == INTERVALS[1:]


def test_by_default_no_two_venues_share_a_name_in_the_store() -> None:
    prefixes = [venue.store_prefix("candlesync") for venue in VENUES.values()]
    assert prefixes == ["candlesync", "candlesync-spot-us", "candlesync-usdm"]
    names = [set(_names(Keys(prefix, 0))) for prefix in prefixes]
    assert sum(map(len, names)) == len(set.union(*names)) == 3 * 9  # each has its own


def _names(keys: Keys) -> list[str]:
    """Of everything that is kept or announced of a symbol, a series and the nodes."""
    of_symbol = (keys.fence(BTC.symbol), keys.lease(BTC.symbol), keys.channel(BTC.symbol))
    return [*keys.members, keys.assembly, *of_symbol, keys.meta(BTC), keys.candles(BTC)]


def test_hosts_are_asked_one_after_the_other_and_never_again() -> None:
    hosts = Hosts(["a", "b"])
    assert (hosts.url, hosts.is_first) == ("a", True)
    with structlog.testing.capture_logs() as logs:
        assert hosts.refused("a")
        assert hosts.refused("a")  # who was on the way asks again, too
        assert (hosts.url, hosts.is_first) == ("b", False)
        assert not hosts.refused("b")
        assert hosts.url == "b"
    assert len(logs) == 1


def test_who_names_a_host_is_not_sent_to_another() -> None:
    assert RestSettings(base_url="https://proxy.test").urls == ("https://proxy.test",)
    assert StreamSettings(stream_url="wss://proxy.test").urls == ("wss://proxy.test",)
    assert RestSettings().urls == ("https://api.binance.com", "https://data-api.binance.vision")
    assert StreamSettings().urls == ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
