"""The tables of the public paths, one a venue: what may be asked there, with which parameters, and what it costs.

Sources: for spot ``rest-api.md`` of github.com/binance/binance-spot-api-docs, "General endpoints" and "Market Data
endpoints", as of 2026-07; for spot-us ``rest-api.md`` of github.com/binance-us/binance-us-api-docs (2023-09-06); for
usdm developers.binance.com, USD-M Futures, "Market Data Endpoints", as of 2026-01, and recorded answers
(``../shared/data/rest/binance_error_bodies.json``: a limit of 1501 is refused). What needs a key is not here, as
``historicalTrades`` on the latter two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from candlesync.binance.public import Answered, Kind, PublicApi, PublicPath, Weight
from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue

_LIST = 64 * 1024 * 1024
"""Bytes of a list of symbols at most: the whole one had some 15 MB in 2025."""


def _always(weight: int) -> Weight:
    return Weight(f"{weight}", lambda _: weight)


def _by_limit(steps: tuple[tuple[int, int], ...], usual: int) -> Weight:
    """By ``limit``, which is ``usual`` when it is not sent; what is above the last step weighs as much as that."""
    words = ", ".join(f"{weight} up to {most}" for most, weight in steps)

    def of(values: Mapping[str, str]) -> int:
        limit = int(values.get("limit", usual))
        return next((weight for most, weight in steps if limit <= most), steps[-1][1])

    return Weight(f"by `limit` ({usual} by default): {words}", of)


def _count(values: Mapping[str, str]) -> int:
    """How many symbols are named; 0: none, so all are meant."""
    return values["symbols"].count(",") + 1 if "symbols" in values else int("symbol" in values)


def _one_or_all(one: int, several: int) -> Weight:
    return Weight(f"{one} for one symbol, else {several}", lambda values: one if "symbol" in values else several)


def _each(weight: int, most: int) -> Weight:
    words = f"{weight} a symbol, {most} at most and for all"
    return Weight(words, lambda values: min(most, weight * _count(values)) or most)


def _of_24_hours(few: int, some: int, many: int) -> Weight:
    def of(values: Mapping[str, str]) -> int:
        count = _count(values)
        return many if not count or count > 100 else some if count > 20 else few

    return Weight(f"{few} up to 20 symbols, {some} up to 100, {many} beyond and for all", of)


def _of_klines(venue: Venue) -> Weight:
    if len(venue.klines_weights) == 1:
        return _always(venue.klines_weights[0][1])
    return _by_limit(venue.klines_weights, 500)


_SYMBOL_ONLY = {"symbol": Kind.SYMBOL}
_TRADES = {"symbol": Kind.SYMBOL, "limit": Kind.NUMBER}
_OLD_TRADES = {**_TRADES, "fromId": Kind.NUMBER}
_SOME = {"symbol": Kind.SYMBOL, "symbols": Kind.SYMBOLS}
_SOME_BY_STATUS = {**_SOME, "symbolStatus": Kind.WORD}
_BETWEEN = {"startTime": Kind.NUMBER, "endTime": Kind.NUMBER}
_AGGREGATES = {"symbol": Kind.SYMBOL, "fromId": Kind.NUMBER, **_BETWEEN, "limit": Kind.NUMBER}
_RANGE = {"interval": Kind.WORD, **_BETWEEN, "limit": Kind.NUMBER}


def _general(venue: Venue, listing: Mapping[str, Kind]) -> tuple[PublicPath, ...]:
    """What each venue has."""
    return (
        PublicPath(
            path=venue.path("ping"),
            summary="Whether the server answers",
            parameters={},
            weight=_always(1),
            answered=Answered.HERE,
        ),
        PublicPath(
            path=venue.path("time"),
            summary="What time the exchange has",
            parameters={},
            weight=_always(1),
            fresh=None,
        ),
        PublicPath(
            path=venue.path("exchangeInfo"),
            summary="The symbols, their rules, and the limits",
            parameters=listing,
            weight=_always(venue.exchange_info_weight),
            answered=Answered.LISTING,
            fresh=60.0,
            longest=_LIST,
        ),
    )


def _klines(venue: Venue, endpoint: str, parameters: Mapping[str, Kind]) -> PublicPath:
    return PublicPath(
        path=venue.path(endpoint),
        summary="Candles of a symbol, as rows",
        parameters=parameters,
        mandatory=("symbol", "interval"),
        weight=_of_klines(venue),
        answered=Answered.CANDLES,
    )


def _of_one(path: str, summary: str, parameters: Mapping[str, Kind], weight: Weight) -> PublicPath:
    """A question about one symbol."""
    return PublicPath(path=path, summary=summary, parameters=parameters, mandatory=("symbol",), weight=weight)


_SPOT_KLINES = {
    "symbol": Kind.SYMBOL,
    "interval": Kind.WORD,
    **_BETWEEN,
    "timeZone": Kind.TIME_ZONE,
    "limit": Kind.NUMBER,
}
_SPOT_PRIVATE = frozenset(
    {"account", "allOrderList", "allOrders", "myAllocations", "myFilters", "myPreventedMatches", "myTrades"}
    | {"openOrderList", "openOrders", "order", "orderList", "rateLimit", "sor", "userDataStream"}
)
"""rest-api.md, "Trading endpoints", "Account Endpoints"."""

SPOT_API: Final = PublicApi(
    venue=SPOT,
    has_microseconds=True,
    private=_SPOT_PRIVATE,
    paths=(
        *_general(
            SPOT,
            {**_SOME, "permissions": Kind.WORDS, "showPermissionSets": Kind.WORD, "symbolStatus": Kind.WORD},
        ),
        _klines(SPOT, "klines", _SPOT_KLINES),
        _klines(SPOT, "uiKlines", _SPOT_KLINES),
        _of_one(
            "/api/v3/depth",
            "The order book",
            {**_TRADES, "symbolStatus": Kind.WORD},
            _by_limit(((100, 5), (500, 25), (1000, 50), (5000, 250)), 100),
        ),
        _of_one("/api/v3/trades", "The newest trades", _TRADES, _always(25)),
        _of_one("/api/v3/historicalTrades", "Older trades", _OLD_TRADES, _always(25)),
        PublicPath(
            path="/api/v3/historicalBlockTrades",
            summary="Older block trades",
            parameters={"symbol": Kind.SYMBOL, "fromId": Kind.NUMBER, "limit": Kind.NUMBER},
            mandatory=("symbol", "fromId"),
            weight=_always(25),
        ),
        _of_one("/api/v3/aggTrades", "Trades, those of one order together", _AGGREGATES, _always(4)),
        _of_one("/api/v3/avgPrice", "The average price of the last minutes", _SYMBOL_ONLY, _always(2)),
        PublicPath(
            path="/api/v3/ticker/24hr",
            summary="How prices changed in 24 hours",
            parameters={**_SOME_BY_STATUS, "type": Kind.WORD},
            weight=_of_24_hours(2, 40, 80),
            fresh=1.0,
        ),
        PublicPath(
            path="/api/v3/ticker/tradingDay",
            summary="How prices changed since the day began",
            parameters={**_SOME_BY_STATUS, "timeZone": Kind.TIME_ZONE, "type": Kind.WORD},
            weight=_each(4, 200),
            fresh=1.0,
        ),
        PublicPath(
            path="/api/v3/ticker/price",
            summary="The newest prices",
            parameters=_SOME_BY_STATUS,
            weight=_one_or_all(2, 4),
        ),
        PublicPath(
            path="/api/v3/ticker/bookTicker",
            summary="The best bids and asks",
            parameters=_SOME_BY_STATUS,
            weight=_one_or_all(2, 4),
        ),
        PublicPath(
            path="/api/v3/ticker",
            summary="How prices changed in a window of time",
            parameters={**_SOME_BY_STATUS, "windowSize": Kind.WORD, "type": Kind.WORD},
            weight=_each(4, 200),
            fresh=1.0,
        ),
        PublicPath(
            path="/api/v3/executionRules",
            summary="Within which prices orders are executed",
            parameters=_SOME_BY_STATUS,
            weight=_each(2, 40),
            fresh=60.0,
        ),
        _of_one("/api/v3/referencePrice", "The reference price", _SYMBOL_ONLY, _always(2)),
        _of_one(
            "/api/v3/referencePrice/calculation",
            "How the reference price is calculated",
            {"symbol": Kind.SYMBOL, "symbolStatus": Kind.WORD},
            _always(2),
        ),
    ),
)
"""Spot. The ticker's window is of the last minutes or days, and its figures are as good a second later."""

SPOT_US_API: Final = PublicApi(
    venue=SPOT_US,
    private=_SPOT_PRIVATE | {"historicalTrades"},
    paths=(
        *_general(SPOT_US, {**_SOME, "permissions": Kind.WORDS}),
        _klines(SPOT_US, "klines", {"symbol": Kind.SYMBOL, **_RANGE}),
        _of_one(
            "/api/v3/depth",
            "The order book",
            _TRADES,
            _by_limit(((100, 1), (500, 5), (1000, 10), (5000, 50)), 100),
        ),
        _of_one("/api/v3/trades", "The newest trades", _TRADES, _always(1)),
        _of_one("/api/v3/aggTrades", "Trades, those of one order together", _AGGREGATES, _always(1)),
        _of_one("/api/v3/avgPrice", "The average price of the last minutes", _SYMBOL_ONLY, _always(1)),
        PublicPath(
            path="/api/v3/ticker/24hr",
            summary="How prices changed in 24 hours",
            parameters={**_SOME, "type": Kind.WORD},
            weight=_of_24_hours(1, 20, 40),
            fresh=1.0,
        ),
        PublicPath(
            path="/api/v3/ticker/price", summary="The newest prices", parameters=_SOME, weight=_one_or_all(1, 2)
        ),
        PublicPath(
            path="/api/v3/ticker/bookTicker",
            summary="The best bids and asks",
            parameters=_SOME,
            weight=_one_or_all(1, 2),
        ),
        PublicPath(
            path="/api/v3/ticker",
            summary="How prices changed in a window of time",
            parameters={**_SOME, "windowSize": Kind.WORD, "type": Kind.WORD},
            weight=_each(2, 100),
            fresh=1.0,
        ),
    ),
)
"""Binance.US."""

_FUNDING = Weight("counted apart by Binance, 500 in 5 minutes; 12 here", lambda _: 12)
"""So heavy that one address may have 100 a minute passed on (``PassingSettings``), as many as Binance allows an IP."""
_STATISTICS = Weight("counted apart by Binance, 1,000 in 5 minutes; 6 here", lambda _: 6)
"""The same, with 200 a minute."""
_PERIOD = {"period": Kind.WORD, "limit": Kind.NUMBER, **_BETWEEN}


def _futures_klines(endpoint: str, summary: str, parameters: Mapping[str, Kind]) -> PublicPath:
    """Candles of something else than trades, which is not followed here."""
    return PublicPath(
        path=USDM.path(endpoint),
        summary=summary,
        parameters={**parameters, **_RANGE},
        mandatory=(*parameters, "interval"),
        weight=_of_klines(USDM),
    )


def _futures_some(endpoint: str, summary: str, weight: Weight, fresh: float = 0.0) -> PublicPath:
    """A question about one symbol, or about all."""
    return PublicPath(path=endpoint, summary=summary, parameters=_SYMBOL_ONLY, weight=weight, fresh=fresh)


def _statistics(endpoint: str, summary: str) -> PublicPath:
    return PublicPath(
        path=f"/futures/data/{endpoint}",
        summary=summary,
        parameters={"symbol": Kind.SYMBOL, **_PERIOD},
        mandatory=("symbol", "period"),
        weight=_STATISTICS,
        fresh=1.0,
    )


USDM_API: Final = PublicApi(
    venue=USDM,
    is_limit_capped=False,
    private=frozenset(
        {"account", "accountConfig", "adlQuantile", "algoOrder", "algoOpenOrders", "allAlgoOrders", "allOrders"}
        | {"allOpenOrders", "apiTradingStatus", "balance", "batchOrders", "commissionRate", "convert", "feeBurn"}
        | {"countdownCancelAll", "forceOrders", "historicalTrades", "income", "leverage", "leverageBracket"}
        | {"listenKey", "marginType", "multiAssetsMargin", "openAlgoOrders", "openOrder", "openOrders", "order"}
        | {"orderAmendment", "pmAccountInfo", "positionMargin", "positionRisk", "positionSide", "rateLimit"}
        | {"symbolConfig", "userTrades"}
    ),
    paths=(
        *_general(USDM, {}),
        _klines(USDM, "klines", {"symbol": Kind.SYMBOL, **_RANGE}),
        _futures_klines(
            "continuousKlines", "Candles of a kind of contract", {"pair": Kind.SYMBOL, "contractType": Kind.WORD}
        ),
        _futures_klines("indexPriceKlines", "Candles of the index price", {"pair": Kind.SYMBOL}),
        _futures_klines("markPriceKlines", "Candles of the mark price", _SYMBOL_ONLY),
        _futures_klines("premiumIndexKlines", "Candles of the premium index", _SYMBOL_ONLY),
        _of_one(
            "/fapi/v1/depth",
            "The order book",
            _TRADES,
            _by_limit(((50, 2), (100, 5), (500, 10), (1000, 20)), 500),
        ),
        _of_one("/fapi/v1/rpiDepth", "The order book with retail price improvement", _TRADES, _always(20)),
        _of_one("/fapi/v1/trades", "The newest trades", _TRADES, _always(5)),
        _of_one("/fapi/v1/aggTrades", "Trades, those of one order together", _AGGREGATES, _always(20)),
        _futures_some("/fapi/v1/premiumIndex", "Mark prices and funding rates", _one_or_all(1, 10)),
        PublicPath(
            path="/fapi/v1/fundingRate",
            summary="Past funding rates",
            parameters={"symbol": Kind.SYMBOL, **_BETWEEN, "limit": Kind.NUMBER},
            weight=_FUNDING,
        ),
        PublicPath(
            path="/fapi/v1/fundingInfo",
            summary="Funding rates with limits of their own",
            parameters={},
            weight=_FUNDING,
            fresh=60.0,
        ),
        _futures_some("/fapi/v1/ticker/24hr", "How prices changed in 24 hours", _one_or_all(1, 40), fresh=1.0),
        _futures_some("/fapi/v1/ticker/price", "The newest prices", _one_or_all(1, 2)),
        _futures_some("/fapi/v2/ticker/price", "The newest prices", _one_or_all(1, 2)),
        _futures_some("/fapi/v1/ticker/bookTicker", "The best bids and asks", _one_or_all(2, 5)),
        _of_one("/fapi/v1/openInterest", "How many contracts are open", _SYMBOL_ONLY, _always(1)),
        _futures_some("/fapi/v1/indexInfo", "Composite indices", _always(1), fresh=60.0),
        _futures_some("/fapi/v1/assetIndex", "Asset indices", _one_or_all(1, 10)),
        _of_one("/fapi/v1/constituents", "What an index price is made of", _SYMBOL_ONLY, _always(2)),
        _futures_some("/fapi/v1/insuranceBalance", "The insurance fund", _always(1)),
        _futures_some("/fapi/v1/symbolAdlRisk", "How likely positions are deleveraged", _always(1)),
        PublicPath(
            path="/fapi/v1/tradingSchedule",
            summary="When contracts of other markets are traded",
            parameters={},
            weight=_always(5),
            fresh=60.0,
        ),
        _statistics("openInterestHist", "How many contracts were open"),
        _statistics("topLongShortPositionRatio", "Positions of top traders"),
        _statistics("topLongShortAccountRatio", "Accounts of top traders"),
        _statistics("globalLongShortAccountRatio", "Accounts of all traders"),
        _statistics("takerlongshortRatio", "Volume that takers bought and sold"),
        PublicPath(
            path="/futures/data/basis",
            summary="How prices differ from the index",
            parameters={"pair": Kind.SYMBOL, "contractType": Kind.WORD, **_PERIOD},
            mandatory=("pair", "contractType", "period", "limit"),
            weight=_STATISTICS,
            fresh=1.0,
        ),
        PublicPath(
            path="/futures/data/delivery-price",
            summary="Prices at past deliveries",
            parameters={"pair": Kind.SYMBOL},
            mandatory=("pair",),
            weight=_STATISTICS,
            fresh=1.0,
        ),
    ),
)
"""USD-M futures. ``/futures/data`` is on the same host."""

_APIS: Final = {api.venue.name: api for api in (SPOT_API, SPOT_US_API, USDM_API)}


def public_api(venue: Venue) -> PublicApi:
    """What a venue answers to everybody."""
    return _APIS[venue.name]
