"""The symbols that the simulator lists, and how Binance describes one in ``exchangeInfo``.

Prices, ticks and volumes are of the size that the real markets had in 2024. Two symbols are there for trouble:
``QUIETBTC`` is silent for many minutes at a time, and ``YOUNGUSDT`` has existed for less than a thousand minutes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from candlesync.simulator.bars import decimal_text, parse_decimal
from candlesync.simulator.chance import below, chance
from candlesync.simulator.walk import Profile

LISTED_BEFORE = 500 * 24 * 60
"""Minutes between the listing of a usual symbol and the start: a thousand candles of twelve hours."""

_QUOTES = ("FDUSD", "USDT", "USDC", "BTC", "ETH", "BNB", "EUR", "TRY")


class SymbolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol of the simulated exchange."""

    name: str
    """Upper case."""
    profile: Profile
    listed_before: int = LISTED_BEFORE
    """How many minutes before the simulator's start it was listed. (Where files have its candles, they say.)"""
    close_delay_ms: int = 4
    """How long after its close time a candle's last frame is sent; 3 to 6 ms were seen for BTCUSDT."""
    mute_when_idle: bool = False
    """Whether a candle without any trade gets no frame at all, not even when it closes: it is only in REST."""


def _profile(price: str, tick: str, lot: str, volume: str, *, trades: int, move: int) -> Profile:
    size = parse_decimal(lot)
    return Profile(
        price=parse_decimal(price),
        tick=parse_decimal(tick),
        lot=size,
        day_volume=parse_decimal(volume) // size,
        day_trades=trades,
        daily_move=move,
    )


DEFAULT_SYMBOLS = (
    SymbolSpec(
        name="BTCUSDT",
        profile=_profile("67700", "0.01", "0.00001", "25000", trades=1_400_000, move=22_000),
    ),
    SymbolSpec(
        name="ETHUSDT",
        profile=_profile("3790", "0.01", "0.0001", "300000", trades=900_000, move=28_000),
    ),
    SymbolSpec(
        name="SOLUSDT",
        profile=_profile("165", "0.01", "0.001", "2800000", trades=700_000, move=40_000),
    ),
    SymbolSpec(
        name="DOGEUSDT",
        profile=_profile("0.159", "0.00001", "1", "900000000", trades=500_000, move=45_000),
    ),
    SymbolSpec(
        name="SHIBUSDT",
        profile=_profile("0.000025", "0.00000001", "1", "1300000000000", trades=300_000, move=45_000),
    ),
    SymbolSpec(
        name="ETHBTC",
        profile=_profile("0.056", "0.00001", "0.0001", "22000", trades=80_000, move=15_000),
    ),
    SymbolSpec(
        name="QUIETBTC",
        profile=_profile("0.00123", "0.0000001", "0.01", "4000", trades=500, move=30_000),
        close_delay_ms=2_400,  # the longest delay seen on thin pairs
        mute_when_idle=True,
    ),
    SymbolSpec(
        name="YOUNGUSDT",
        profile=_profile("1.25", "0.0001", "0.1", "40000000", trades=400_000, move=90_000),
        listed_before=700,
    ),
)


def symbol_spec(name: str) -> SymbolSpec:
    """The specification of a symbol: one of the defaults, or an ordinary market made up from its name."""
    for known in DEFAULT_SYMBOLS:
        if known.name == name:
            return known
    rng = chance("symbol", name)
    price = f"{10 ** below(rng, 4)}.{below(rng, 10**4):04d}"
    return SymbolSpec(name=name, profile=_profile(price, "0.0001", "0.01", "1000000", trades=150_000, move=35_000))


def _quote(spec: SymbolSpec) -> str:
    return next((quote for quote in _QUOTES if spec.name.endswith(quote) and spec.name != quote), spec.name[-3:])


def contract_description(spec: SymbolSpec) -> dict[str, Any]:
    """The same of a USD-M perpetual contract, with the fields that Binance documents."""
    quote = _quote(spec)
    return {
        "symbol": spec.name,
        "pair": spec.name,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING",
        "baseAsset": spec.name.removesuffix(quote),
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": 8,
        "quantityPrecision": 8,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": decimal_text(spec.profile.tick)}],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def description(spec: SymbolSpec) -> dict[str, Any]:
    """The symbol's entry in ``exchangeInfo``, with the fields that Binance documents and recorded answers have."""
    quote = _quote(spec)
    profile = spec.profile
    return {
        "symbol": spec.name,
        "status": "TRADING",
        "baseAsset": spec.name.removesuffix(quote),
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": decimal_text(profile.tick),
                "maxPrice": decimal_text(profile.price * 1000),
                "tickSize": decimal_text(profile.tick),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": decimal_text(profile.lot),
                "maxQty": decimal_text(profile.lot * profile.day_volume),
                "stepSize": decimal_text(profile.lot),
            },
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": decimal_text(0),
                "maxQty": decimal_text(profile.lot * (profile.day_volume // 1000)),
                "stepSize": decimal_text(0),
            },
            {
                "filterType": "TRAILING_DELTA",
                "minTrailingAboveDelta": 10,
                "maxTrailingAboveDelta": 2000,
                "minTrailingBelowDelta": 10,
                "maxTrailingBelowDelta": 2000,
            },
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": "5",
                "bidMultiplierDown": "0.2",
                "askMultiplierUp": "5",
                "askMultiplierDown": "0.2",
                "avgPriceMins": 5,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": "0.00010000" if quote in {"BTC", "ETH", "BNB"} else "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }
